"""Many clients at once, slow ones, and ones that go away: the service stays alive, and nothing stays behind."""

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.batch_stub import write_clip
from tests.support.served import Running, await_true, free_port, leftovers

QUEUE, UPLOADS, PADDING = 4, 6, 6_000_000

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")


@contextmanager
def service(folder: Path, stall_s: int) -> Iterator[Running]:
    """A service whose jobs do not end by themselves; it gives up on a client that sends nothing for ``stall_s``."""
    words = ("--queue", QUEUE, "--uploads", UPLOADS, "--max-mb", 10, "--stall-s", stall_s)
    one = Running(folder, free_port(), *words, sleep=600)
    one.folder = folder
    try:
        yield one
    finally:
        one.process.terminate()
        one.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One that soon gives up, for clients that are slow on purpose."""
    with service(tmp_path_factory.mktemp("parallel") / "jobs", 3) as one:
        yield one


@pytest.fixture
def patient(tmp_path):
    """One that waits: a hundred clients in one process stand still for a second where the machine is busy."""
    with service(tmp_path / "jobs", 60) as one:
        yield one


@pytest.fixture(scope="module")
def padded(tmp_path_factory) -> bytes:
    """A good clip of some megabytes: a box that holds nothing stands at its end."""
    clip = write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", 4).read_bytes()
    return clip + struct.pack(">I4s", PADDING, b"free") + bytes(PADDING - 8)


def most_memory(pid: int) -> int:
    """Bytes that a process has held at most."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


def test_a_hundred_uploads_at_once(patient, padded) -> None:
    import httpx

    before = most_memory(patient.process.pid)

    async def send_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=patient.base, limits=limits, timeout=120) as client:
            posts = [client.post("/api/jobs", files={"file": (f"{i}.mp4", padded)}) for i in range(100)]
            return await asyncio.gather(*posts)

    answers = asyncio.run(send_all())
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {201, 429}, counts
    assert 1 <= counts[201] <= QUEUE + 1  # those that wait, and the one that is worked on
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    await_true(lambda: patient.ask("/health")["busy"] == 1, "no job was begun")
    states = Counter(job["state"] for job in patient.ask("/api/jobs")["jobs"])
    assert states["running"] == 1, states
    assert states["queued"] <= QUEUE
    assert sum(states.values()) == counts[201]
    assert leftovers(patient.folder) == []
    grown = most_memory(patient.process.pid) - before
    assert grown < 100 * 2**20, f"{grown / 2**20:.0f} MiB for {100 * PADDING / 2**20:.0f} MiB of uploads"
    # Nothing else suffers: what waits is ended, and the service answers.
    for job in patient.ask("/api/jobs")["jobs"]:
        if job["state"] == "queued":
            patient.ask(f"/api/jobs/{job['id']}/cancel", b"")
    assert patient.ask("/health")["status"] == "ok"


def begin(running, length: int) -> socket.socket:
    """An upload that has sent its head and the first bytes of the clip."""
    host, port = running.base.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), 10)
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + bytes(1000)
    head = f"POST /api/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    client.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
    return client


def test_a_client_that_stands_still_is_told_so(running) -> None:
    client = begin(running, 100_000)
    await_true(lambda: leftovers(running.folder), "the upload never began")
    client.settimeout(30)
    assert client.recv(100).startswith(b"HTTP/1.1 408")
    client.close()
    await_true(lambda: not leftovers(running.folder), "the upload stays")


def test_a_client_that_goes_away_leaves_nothing(running) -> None:
    client = begin(running, 100_000)
    await_true(lambda: leftovers(running.folder), "the upload never began")
    client.close()
    await_true(lambda: not leftovers(running.folder), "the upload stays")


def test_a_clip_that_is_said_to_be_too_large_is_refused_before_it_comes(running) -> None:
    client = begin(running, 10**12)
    client.settimeout(30)
    assert client.recv(100).startswith(b"HTTP/1.1 413")
    client.close()
    assert leftovers(running.folder) == []


def test_slow_clients_do_not_hold_the_others(running) -> None:
    """All places for uploads are taken by clients that send nothing more; they are free again after a while."""
    clients = [begin(running, 100_000) for _ in range(UPLOADS + 4)]
    for client in clients:
        client.settimeout(30)
    answers = Counter(client.recv(100)[9:12] for client in clients)
    assert set(answers) <= {b"408", b"429"}, answers
    for client in clients:
        client.close()
    await_true(lambda: not leftovers(running.folder), "uploads stay")
    assert running.ask("/health")["status"] == "ok"
