"""A clip from an address on the web, for services that allow it: never from a private network, however it is asked.

The name is resolved once, every address that it stands for must be public, and the connection goes to the address that
was looked at: a name that means another place a moment later leads nowhere. So it is for every redirect. Proxies of the
environment are not used.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urljoin, urlsplit

from geo4d import __version__
from geo4d.service.refusals import Refusal, full_disk

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""(host name, port) -> numeric addresses."""

PORTS = (80, 443)
"""Others are no places of films, but of services that somebody forgot."""

MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 2**20


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also what is packed in it (IPv4 in IPv6, 6to4, Teredo).

    Those of NAT64 count as reserved, whatever they lead to.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if any(one is not None and not is_public(str(one)) for one in inner):
            return False
        if ip.ipv4_mapped is not None:
            return True
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve(host: str, port: int) -> list[str]:
    """Numeric addresses of a host name.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Fetches clips.

    Args:
        most_bytes: of a clip.
        stall_s: seconds without a byte.
        total_s: seconds altogether, redirects included.
        resolve: (host name, port) -> numeric addresses.
        allows: whether an address may be connected to.
        ports: that may be connected to.
    """

    def __init__(
        self,
        most_bytes: int,
        stall_s: float,
        total_s: float,
        *,
        resolve: Resolve = resolve,
        allows: Callable[[str], bool] = is_public,
        ports: Sequence[int] = PORTS,
    ) -> None:
        self._most_bytes, self._stall_s, self._total_s = most_bytes, stall_s, total_s
        self._resolve, self._allows, self._ports = resolve, allows, ports

    def fetch(self, url: str, path: Path) -> tuple[str, int]:
        """Write what is at an address to ``path``.

        Returns:
            the name of the file, as the address states it, and its bytes.
        Raises:
            Refusal: the address is no public one, or does not give a file of the right size in time.
        """
        deadline = time.monotonic() + self._total_s
        for _ in range(MOST_REDIRECTS + 1):
            connection, target = self._connect(url, deadline)
            stop = threading.Timer(max(deadline - time.monotonic(), 0), _shut, [connection])
            stop.daemon = True
            stop.start()  # a server that sends a byte now and then must not hold us beyond the deadline
            try:
                answer = self._ask(connection, target)
                if answer.status in _REDIRECTS:
                    url = urljoin(url, answer.headers.get("Location", ""))
                    continue
                if answer.status != 200:
                    raise Refusal(422, f"the address answered {answer.status}; expected a file", code=3)
                return unquote(urlsplit(url).path.rsplit("/", 1)[-1]), self._save(answer, path, deadline)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() >= deadline:
                    raise Refusal(
                        422, f"the address gave no file in {self._total_s:g} seconds", code=3
                    ) from error
                raise Refusal(
                    422, f"the address cannot be read: {error or type(error).__name__}", code=3
                ) from error
            finally:
                stop.cancel()
                connection.close()
        raise Refusal(422, f"the address leads on more than {MOST_REDIRECTS} times", code=3)

    def _connect(self, url: str, deadline: float) -> tuple[http.client.HTTPConnection, str]:
        """A connection to an address that was looked at, and what to ask there.

        Raises:
            Refusal: there is none.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise Refusal(
                422, f"expected an address such as https://example.org/clip.mp4: {error}", code=2
            ) from error
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise Refusal(
                422,
                "expected an address http:// or https:// without a user, such as a link to a file",
                code=2,
            )
        port = port or {"http": 80, "https": 443}[parts.scheme]
        if port not in self._ports:
            raise Refusal(
                422, f"expected one of the ports {', '.join(map(str, self._ports))}, got {port}", code=2
            )
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise Refusal(422, f"there is no host {host[:200]!r}", code=3) from error
        if not addresses or not all(self._allows(address) for address in addresses):
            raise Refusal(422, f"{host[:200]!r} is no public host; send the file itself", code=2)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = _Pinned(addresses[0], host, port, parts.scheme == "https", self._stall_s)
        return connection, path.encode("ascii", "ignore").decode()

    def _ask(self, connection: http.client.HTTPConnection, target: str) -> http.client.HTTPResponse:
        agent = f"geo4d/{__version__}"
        headers = {
            "User-Agent": agent,
            "Accept": "video/*, image/*, */*;q=0.5",
            "Accept-Encoding": "identity",
        }
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def _save(self, answer: http.client.HTTPResponse, path: Path, deadline: float) -> int:
        """
        Raises:
            Refusal: too large.
            OSError: too slow, or ended before its end.
        """
        too_large = Refusal(
            413, f"expected a clip of at most {self._most_bytes / 1e6:g} MB, got more", code=3
        )
        stated = answer.headers.get("Content-Length", "")
        if stated.isdecimal() and int(stated) > self._most_bytes:
            raise too_large
        count = 0
        with path.open("xb") as file:
            while piece := answer.read1(_PIECE):
                count += len(piece)
                if count > self._most_bytes:
                    raise too_large
                if time.monotonic() >= deadline:
                    raise TimeoutError("too slow")
                with full_disk():
                    file.write(piece)
                    file.flush()
        if time.monotonic() >= deadline:  # what looks like the end is ours
            raise TimeoutError("too slow")
        if stated.isdecimal() and count != int(stated):
            raise OSError(f"it ended after {count} of {stated} bytes")
        return count


class _Pinned(http.client.HTTPConnection):
    """A connection to one numeric address, whatever the name means now; certificates are those of the name."""

    def __init__(self, address: str, host: str, port: int, secure: bool, timeout: float) -> None:
        super().__init__(f"[{host}]" if ":" in host else host, port, timeout=timeout)
        self.default_port = 443 if secure else 80
        self._address, self._name, self._secure = address, host, secure

    def connect(self) -> None:
        """Open it."""
        plain: Any = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = plain
        if self._secure:
            try:
                self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self._name)
            except BaseException:
                plain.close()
                raise


def _shut(connection: http.client.HTTPConnection) -> None:
    """End a connection that another thread waits for."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
