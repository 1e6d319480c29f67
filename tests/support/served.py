"""A service with the model ``stub``, and what tests send to it and ask of it."""

import json
import os
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geo4d.types import Reconstruction


def stub_run(**options: Any) -> dict[str, Any]:
    """Keywords of a run with the stub, which worker processes get as it is."""
    from tests.support.batch_stub import StubPredictor
    from tests.support.truth import BoxWorld

    stub = StubPredictor(BoxWorld((24, 40)), **{"length": 8, "stride": 4, **options})
    return {"model": stub, "output_size": "model", "tries": 0, "device": "cpu"}


def await_true(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application on a socket of this machine; its address."""
    import uvicorn

    opened = socket.create_server(("127.0.0.1", 0), backlog=256)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        await_true(lambda: server.started, "the server never started", 20)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        opened.close()


def square_scene(num_frames: int = 6, size: tuple[int, int] = (48, 64)) -> "Reconstruction":
    """A grey wall at 3 with a red square at 2 that moves to the right; the camera moves a little to the right."""
    import numpy as np
    import torch

    from geo4d.geometry.cameras import centred_intrinsics
    from geo4d.types import Reconstruction

    depth = np.full((num_frames, *size), 3.0, np.float32)
    rgb = np.full((num_frames, *size, 3), 0.6, np.float32)
    dynamic = np.zeros((num_frames, *size), np.float32)
    for t in range(num_frames):
        square = np.s_[16:32, 4 + 8 * t : 16 + 8 * t]
        depth[t][square], dynamic[t][square], rgb[t][square] = 2.0, 1.0, [1.0, 0.0, 0.0]
    c2w = np.tile(np.eye(4), (num_frames, 1, 1))
    c2w[:, 0, 3] = np.linspace(0, 0.2, num_frames)
    return Reconstruction(
        depth=depth,
        confidence=np.ones_like(depth),
        intrinsics=centred_intrinsics(torch.full((num_frames,), 60.0), size).numpy(),
        times_s=np.arange(num_frames) / 10,
        source_frames=np.arange(num_frames),
        c2w=c2w,
        dynamic=dynamic,
        rgb=rgb,
        reliable=np.array([True] * (num_frames - 1) + [False]),
    )


def chromium() -> str | None:
    """Where a Chromium is."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def leftovers(folder: Path) -> list[str]:
    """What of uploads lies in the folder of a service, which may take it away meanwhile."""
    found = []
    for place, folders, files in os.walk(folder / "incoming"):  # goes on where a folder has just vanished
        found += [os.path.relpath(os.path.join(place, name), folder) for name in (*folders, *files)]
    return sorted(found)


def windows(trace: Path) -> list[str]:
    """Numbers of the windows that were begun, in the folder that the stub leaves its trace in."""
    return [line.split()[0] for file in sorted(trace.iterdir()) for line in file.read_text().splitlines()]


class Running:
    """A service as a process."""

    def __init__(self, folder: Path, port: int, *more: object, **options: object) -> None:
        from tests.support import batch_stub

        words = [
            *more,
            "--folder",
            folder,
            "--port",
            port,
            "--min-free-mb",
            1,
            "--model",
            "stub",
            "--output-size",
            "model",
            "--tries",
            0,
        ]
        self.base = f"http://127.0.0.1:{port}"
        self.process = batch_stub.start("serve", *words, **options)
        await_true(self.is_up, "the service never came up")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        try:
            return self.ask("/health")["status"] == "ok"
        except OSError:
            return False

    def ask(self, path: str, data: bytes | None = None, kind: str = "") -> dict:
        request = urllib.request.Request(self.base + path, data, {"Content-Type": kind} if kind else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def send(self, clip: Path) -> str:
        """A form by hand, as the rule of the format has it; the id of the job."""
        words = b'--x\r\nContent-Disposition: form-data; name="file"; filename="box.mp4"\r\n\r\n'
        body = words + clip.read_bytes() + b"\r\n--x--\r\n"
        return self.ask("/api/jobs", body, "multipart/form-data; boundary=x")["id"]

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        threads = path.parent.parent.glob("*/children")
        return [int(pid) for file in threads for pid in file.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
