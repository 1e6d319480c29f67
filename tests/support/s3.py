"""An S3 on loopback (moto's server), behind a proxy that answers badly when it is told to."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

BUCKET = "bucket"


class Proxy(ThreadingHTTPServer):
    """Passes requests on.

    Attributes:
        faults: (method, part of the path, kind) in turn; each is used once, by the first request that fits. Kinds:
            ``503``; ``slow`` (no answer while the client listens); ``cut`` (the connection ends within the body);
            ``short`` (half of the body, in an answer that looks whole); ``lost`` (the connection ends without an answer).
        seen: (method, path) of every request.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.faults: deque[tuple[str, str, str]] = deque()
        self.used: list[str] = []
        self.seen: list[tuple[str, str]] = []
        self.guard = threading.Lock()

    def take_fault(self, method: str, path: str) -> str:
        with self.guard:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault[0] == method and fault[1] in path:
                    self.faults.remove(fault)
                    self.used.append(fault[2])
                    return fault[2]
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *rest) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.take_fault(self.command, self.path)
        if kind == "503":
            self._answer(503, [], b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>")
            return
        if kind in ("slow", "lost"):
            time.sleep(2.5 if kind == "slow" else 0)
            self.close_connection = True
            return
        connection = HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _OURS]
        if kind == "short":
            headers = [(k, v) for k, v in headers if "checksum" not in k.lower() and k.lower() != "etag"]
            content = content[: len(content) // 2]
        self._answer(
            answer.status, headers, content, cut=kind == "cut", length=answer.getheader("Content-Length")
        )
        connection.close()

    def _answer(self, status, headers, content, *, cut=False, length=None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        told = length if self.command == "HEAD" and length is not None else str(len(content))
        self.send_header("Content-Length", told)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on


_OURS = ("content-length", "transfer-encoding", "connection", "date", "server")


@contextmanager
def faulty_s3() -> Iterator[Proxy]:
    """A bucket ``bucket`` that fsspec reaches at ``s3://bucket`` as long as this lasts."""
    import fsspec
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    before = fsspec.config.conf.get("s3")
    fsspec.config.conf["s3"] = {
        "endpoint_url": f"http://127.0.0.1:{proxy.server_port}",
        "key": "key",
        "secret": "secret",
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"connect_timeout": 2, "read_timeout": 2, "retries": {"max_attempts": 0}},
    }
    S3FileSystem.clear_instance_cache()
    retries, S3FileSystem.retries = (
        S3FileSystem.retries,
        1,
    )  # its own, with pauses of seconds, would hide ours
    try:
        with urlopen(Request(f"http://127.0.0.1:{proxy.behind}/{BUCKET}", method="PUT")):
            pass
        yield proxy
    finally:
        fsspec.config.conf.pop("s3")
        if before is not None:
            fsspec.config.conf["s3"] = before
        S3FileSystem.clear_instance_cache()
        S3FileSystem.retries = retries
        proxy.shutdown()
        proxy.server_close()
        server.stop()
