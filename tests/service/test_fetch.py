"""Addresses that must not be reached, in every dress; and a server on this machine that is allowed to a test alone."""

import http.server
import socket
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from geo4d.service.fetch import Fetcher, is_public, resolve
from geo4d.service.refusals import Refusal

CLIP = b"clip" * 1000


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:0001::", "2002:0a00:0001::1", "2001:0:7f00:1::", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_of_private_networks(address) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]
)
def test_addresses_of_the_open_internet(address) -> None:
    assert is_public(address)


def refused(url: str, path: Path, fetcher: Fetcher | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        (fetcher or Fetcher(10_000, 2, 5)).fetch(url, path)
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/a.mp4", "gopher://127.0.0.1/", "http:///a.mp4", "//example.org/a",
        "a.mp4", "", "http://user:secret@example.org/a.mp4", "http://example.org:22/", "http://example.org:6379/",
        "http://[bad/",
        "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/",
        "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://0/", "http://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/", "http://[fe80::1]/",
    ],
)  # fmt: skip
def test_addresses_that_are_refused_before_anything_is_sent(url, tmp_path, monkeypatch) -> None:
    def nothing(*arguments, **rest):
        raise AssertionError(f"connected to {arguments}")

    monkeypatch.setattr(socket, "create_connection", nothing)
    refusal = refused(url, tmp_path / "clip")
    assert refusal.status == 422
    assert list(tmp_path.iterdir()) == []


class Handler(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        word, _, rest = self.path.lstrip("/").partition("/")
        if word == "to":
            self.send_response(302)
            self.send_header("Location", rest if "://" in rest else "/" + rest)
            self.end_headers()
            return
        if word == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(200):
                time.sleep(0.05)
                try:
                    self.wfile.write(f"X-{number}: y\r\n".encode())
                except OSError:
                    return
            return
        self.send_response(404 if word == "none" else 200)
        self.send_header("Content-Length", str(10**9 if word == "big" else len(CLIP) + 5 * (word == "short")))
        self.end_headers()
        self.wfile.write(CLIP)

    def log_message(self, *words) -> None:
        pass


@pytest.fixture
def server():
    Handler.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.daemon_threads = True
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one.server_address[1]
        one.shutdown()


def fetcher(
    port: int, *, hosts: dict[str, list[str]] | None = None, most: int = 10_000, total_s: float = 5
) -> Fetcher:
    """Takes 127.0.0.1 for a public address, and nothing else of this machine."""
    names = {"films.example": ["127.0.0.1"], **(hosts or {})}

    def look(host: str, port: int) -> list[str]:
        return names[host] if host in names else resolve(host, port)

    return Fetcher(most, 2, total_s, resolve=look, allows=lambda one: one == "127.0.0.1", ports=(port,))


def test_a_clip_comes_with_its_name(server, tmp_path) -> None:
    got = fetcher(server).fetch(f"http://films.example:{server}/to/some/my%20clip.mp4?x=1", tmp_path / "clip")
    assert got == ("my clip.mp4", len(CLIP))
    assert (tmp_path / "clip").read_bytes() == CLIP
    assert Handler.asked[0] == ("/to/some/my%20clip.mp4?x=1", f"films.example:{server}")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/x",
        "http://[::1]:{port}/x",
        "http://inner.example:{port}/x",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
    ],
)
def test_every_redirect_is_looked_at(target, server, tmp_path) -> None:
    hosts = {"inner.example": ["10.0.0.1"]}
    url = f"http://films.example:{server}/to/{target.format(port=server)}"
    assert refused(url, tmp_path / "clip", fetcher(server, hosts=hosts)).status == 422
    assert len(Handler.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_one_private_address_among_public_ones(server, tmp_path) -> None:
    hosts = {"both.example": ["127.0.0.1", "10.0.0.1"]}
    refused(f"http://both.example:{server}/x", tmp_path / "clip", fetcher(server, hosts=hosts))
    assert Handler.asked == []


def test_a_name_that_means_another_place_a_moment_later(server, tmp_path, monkeypatch) -> None:
    """DNS rebinding: the connection goes to what was looked at, and the name is not asked for again."""
    asked = []

    def look(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    reached = []
    real = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda place, *rest: reached.append(place) or real(place, *rest)
    )
    one = Fetcher(10_000, 2, 5, resolve=look, allows=lambda address: address == "127.0.0.1", ports=(server,))
    one.fetch(f"http://rebound.example:{server}/x", tmp_path / "clip")
    assert asked == ["rebound.example"]
    assert reached == [("127.0.0.1", server)]


def test_round_in_circles_and_not_there(server, tmp_path) -> None:
    turns = "/".join(["to"] * 8)
    assert "more than 5 times" in str(
        refused(f"http://films.example:{server}/{turns}/x", tmp_path / "a", fetcher(server))
    )
    assert "404" in str(refused(f"http://films.example:{server}/none", tmp_path / "b", fetcher(server)))


def test_too_large_too_short_and_too_slow(server, tmp_path) -> None:
    base = f"http://films.example:{server}"
    assert refused(f"{base}/big", tmp_path / "a", fetcher(server)).status == 413
    assert refused(f"{base}/x", tmp_path / "b", fetcher(server, most=100)).status == 413
    assert "ended after 4000 of 4005" in str(refused(f"{base}/short", tmp_path / "c", fetcher(server)))
    began = time.monotonic()
    refusal = refused(f"{base}/drip", tmp_path / "d", fetcher(server, total_s=0.5))
    assert "0.5 seconds" in str(refusal), refusal
    assert (
        time.monotonic() - began < 8
    )  # no limit of speed: it would take ten seconds, and the deadline is half of one
