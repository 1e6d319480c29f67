"""The viewer answers its own page and programs, and no page of another site."""

import socket

import pytest

from geo4d.errors import OutputError
from geo4d.viewer.guard import guarded, is_allowed
from geo4d.viewer.viser_view import ViewConfig, Viewer
from tests.viewer.test_viser_view import free_port, scene  # noqa: F401


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("localhost:8080", "http://localhost:8080", True),
        ("LocalHost:8080", "http://localhost:8080", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("192.168.1.7:8080", "http://192.168.1.7:8080", True),
        ("studio:8080", "http://studio:8080", True),
        ("localhost:9000", "http://localhost:9000", True),  # through a tunnel
        ("localhost", "http://localhost", True),
        ("localhost:8080", None, True),  # no browser
        ("127.0.0.1:8080", "http://evil.example", False),
        ("127.0.0.1:8080", "http://127.0.0.1:3000", False),  # another program of this machine
        ("127.0.0.1:8080", "http://localhost:8080", False),
        ("127.0.0.1:8080", "https://127.0.0.1", False),
        ("127.0.0.1:8080", "null", False),
        ("127.0.0.1:8080", "", False),
        ("127.0.0.1:8080", "file://", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080.evil.example", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080@evil.example", False),
        ("evil.example:8080", "http://evil.example:8080", False),  # a name that was made to point here
        ("evil.example", None, False),
        ("", None, False),
        ("localhost:99999999", None, False),
        ("127.0.0.1:8080", "https://notebook.example", True),  # named by the user
        ("notebook.example", "https://notebook.example", True),
    ],
)
def test_who_is_answered(host: str, origin: str | None, expected: bool) -> None:
    origins = [] if origin is None else [origin]
    assert is_allowed(host, origins, ["studio"], ["https://notebook.example"]) is expected


def test_two_origins_are_none() -> None:
    assert not is_allowed("localhost:1", ["http://localhost:1", "http://localhost:1"], [])


def status(port: int, *headers: str) -> int:
    """Status line of what the server answers to a request with these headers."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join(["GET / HTTP/1.1", *headers, "", ""]).encode())
        return int(connection.recv(100).split()[1])


def socket_status(port: int, host: str, *headers: str) -> int:
    return status(
        port,
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: viser-v1.1.1",
        *headers,
    )


def test_a_page_of_another_site_gets_no_socket(scene) -> None:  # noqa: F811
    port = free_port()
    own = f"127.0.0.1:{port}"
    with Viewer(scene, ViewConfig(port=port, origins=("https://notebook.example",))):
        assert socket_status(port, own, f"Origin: http://{own}") == 101
        assert socket_status(port, own) == 101
        assert socket_status(port, own, "Origin: https://notebook.example") == 101
        assert socket_status(port, own, "Origin: http://evil.example") == 403
        assert socket_status(port, own, "origin: null") == 403
        assert socket_status(port, f"evil.example:{port}", f"Origin: http://evil.example:{port}") == 403
        assert status(port, f"Host: {own}") == 200
        assert status(port, f"Host: evil.example:{port}") == 403
        assert socket_status(port, own, f"Origin: http://{own}") == 101  # it goes on after refusals


def test_a_server_that_cannot_be_guarded_is_not_shown() -> None:
    import websockets.asyncio.server as library

    before = library.serve
    with pytest.raises(OutputError, match="cannot guard"), guarded("127.0.0.1"):
        pass
    assert library.serve is before
