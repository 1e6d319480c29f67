"""Who may talk to the viewer: its own page, and programs; not a page of another site that a browser happens to show.

A browser lets any page open a WebSocket to any address, also to one that only this machine reaches, and says in
``Origin`` where the page comes from. So a connection is refused unless that is the address the viewer was asked under
(``Host``), and unless that address is one of this machine's: a site could make its own name point here.
"""

import http
import inspect
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from geo4d.errors import OutputError

_SERVE = threading.Lock()


def is_allowed(host: str, origins: Sequence[str], names: Sequence[str], proxies: Sequence[str] = ()) -> bool:
    """Whether a request may be answered.

    Args:
        host: its ``Host`` header.
        origins: its ``Origin`` headers; a browser sends one for every WebSocket, other programs send none.
        names: host names of this machine; numeric addresses and ``localhost`` need not be named.
        proxies: origins of pages that may connect in any case.
    """
    if len(origins) > 1:
        return False
    if origins and origins[0] in proxies:
        return True
    if not _is_here(host, names):
        return False
    return not origins or _place(origins[0]) == _place("//" + host)


def _place(url: str) -> tuple[str, int | None] | None:
    """Host name and port of an address; None when it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("", "http", "https") or parts.path or parts.query:
        return None
    return parts.hostname.lower(), port if port is not None else {"https": 443}.get(parts.scheme, 80)


def _is_here(host: str, names: Sequence[str]) -> bool:
    place = _place("//" + host)
    if place is None:
        return False
    try:
        ipaddress.ip_address(place[0])
    except ValueError:
        return place[0] == "localhost" or place[0] in [name.lower() for name in names]
    return True


@contextmanager
def guarded(host: str, proxies: Sequence[str] = ()) -> Iterator[None]:
    """Guard the server that is started inside: it answers requests of other sites with 403.

    The viewer's library passes no such check on to the library that serves, so it is put between the two.

    Args:
        host: name or address that is served on.
        proxies: origins of pages that may connect in any case, such as ``https://notebook.example``.
    Raises:
        OutputError: the server was not started in the way that this can guard.
    """
    import websockets.asyncio.server as library
    from websockets.datastructures import Headers
    from websockets.http11 import Request, Response

    names = [host, socket.gethostname(), socket.getfqdn()]
    used = threading.Event()
    with _SERVE:
        serve: Any = library.serve

        def guarded_serve(
            *arguments: Any, process_request: Callable[..., Any] | None = None, **options: Any
        ) -> Any:
            async def check(connection: Any, request: Request) -> Any:
                hosts = request.headers.get_all("Host")
                origins = request.headers.get_all("Origin")
                if len(hosts) != 1 or not is_allowed(hosts[0], origins, names, proxies):
                    body = b"this viewer answers its own page only\n"
                    length = Headers({"Content-Length": str(len(body)), "Connection": "close"})
                    return Response(http.HTTPStatus.FORBIDDEN, "Forbidden", length, body)
                answer: Any = None if process_request is None else process_request(connection, request)
                return await answer if inspect.isawaitable(answer) else answer

            used.set()
            return serve(*arguments, process_request=check, **options)

        library.serve = guarded_serve  # type: ignore[misc, assignment]
        try:
            yield
        finally:
            library.serve = serve  # type: ignore[misc]
    if not used.is_set():
        raise OutputError(
            "the installed version of viser starts its server in a way that geo4d cannot guard against other sites; "
            "install one from 1.0 to 1.1"
        )
