"""Who may ask the service: its own page and programs, with the token where there is one; no page of another site."""

import hashlib
import hmac
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from geo4d.service.refusals import Refusal
from geo4d.service.settings import ServiceSettings
from geo4d.viewer.guard import is_allowed

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "geo4d_session"
"""What a browser shows in place of the token: links and films of a page cannot send a header."""

OPEN = ("/", "/health", "/openapi.json", "/api/session")
"""Answered without the token, as is what lies below ``/page/``: the page itself holds nothing of anyone."""

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Access:
    """Decides on requests.

    Args:
        settings: names and origins beside this machine's own.
        token: that clients must show; None: none.
    """

    def __init__(self, settings: ServiceSettings, token: str | None) -> None:
        self._origins = settings.origins
        behind = [name for origin in settings.origins if (name := urlsplit(origin).hostname)]
        self._names = [settings.host, socket.gethostname(), socket.getfqdn(), *settings.names, *behind]
        self._token = token
        self.session = None if token is None else _sign(token)

    def require(
        self, path: str, hosts: list[str], origins: list[str], authorization: str, cookies: str
    ) -> None:
        """
        Raises:
            Refusal: 403 for a page of another site, 401 without the token.
        """
        if len(hosts) != 1 or not is_allowed(hosts[0], origins, self._names, self._origins):
            raise Refusal(
                403,
                "this service answers its own page only, under its own address; another name, such as that of a proxy, "
                "is allowed with --names, a page elsewhere with --origins",
            )
        if path in OPEN or path.startswith("/page/"):
            return
        if not self.knows(authorization) and not self._has_session(cookies):
            raise Refusal(401, "expected the token of the service, as 'Authorization: Bearer TOKEN'")

    def knows(self, authorization: str) -> bool:
        """Whether the header shows the token, or none is needed; takes as long for a wrong one as for the right one."""
        if self._token is None:
            return True
        kind, _, shown = authorization.partition(" ")
        right = hmac.compare_digest(_digest(shown.strip()), _digest(self._token))
        return right and kind.lower() == "bearer"

    def _has_session(self, cookies: str) -> bool:
        try:
            morsel = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(_digest(morsel.value), _digest(self.session or ""))


def _sign(token: str) -> str:
    """What stands in the cookie: it opens this service, and the token cannot be read from it."""
    return hmac.new(token.encode(), b"geo4d page", hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


class Guard:
    """Stands before an application (ASGI): asks ``Access`` first, and adds the headers that every answer has."""

    def __init__(self, application: Any, access: Access, refuse: Callable[[Refusal], Any]) -> None:
        self._application, self._access, self._refuse = application, access, refuse

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._application(scope, receive, send)
            return  # no WebSockets here

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in there)]
            await send(message)

        try:
            self._access.require(
                scope["path"],
                _values(scope, b"host"),
                _values(scope, b"origin"),
                next(iter(_values(scope, b"authorization")), ""),
                "; ".join(_values(scope, b"cookie")),
            )
        except Refusal as refusal:
            await self._refuse(refusal)(scope, receive, send_with_headers)
            return
        await self._application(scope, receive, send_with_headers)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
