"""A batch as its own process, with the model ``stub``: the truth of a small world, slow or deadly on demand.

Run as a script: ``python tests/support/batch_stub.py batch SOURCES -o OUT --model stub``. Worker processes import it
again, and so have the model, too.

Options of the model: ``sleep`` (seconds per window), ``trace`` (a folder, where each window leaves a line in the file of
its process), ``poison`` (clips of so many frames kill their process), ``signal`` (by which signal), ``full`` (a file;
while it is there, windows find no room on the disk).
"""

import errno
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

from geo4d.models import base
from tests.support.truth import BoxWorld, TruthPredictor

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class StubPredictor(TruthPredictor):
    """See the module."""

    sleep: float = 0.0
    trace: str = ""
    poison: int = 0
    signal: str = "SIGKILL"
    full: str = ""

    def predict(self, window, **rest):
        if self.trace:
            with (Path(self.trace) / str(os.getpid())).open("a") as file:
                print(window.index, window.num_frames, f"{float(window.rgb.mean()):.6f}", file=file)
        time.sleep(self.sleep)
        if window.num_frames == self.poison:
            os.kill(os.getpid(), getattr(signal, self.signal))
            time.sleep(60)
        if self.full and Path(self.full).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().predict(window, **rest)


def load(name, weights=None, device=None, dtype=None, **options):
    return StubPredictor(BoxWorld((24, 40)), **{"length": 8, "stride": 4, **options})


stub = types.ModuleType("geo4d_batch_stub")
stub.load = load
sys.modules[stub.__name__] = stub
if __name__ in (
    "__main__",
    "__mp_main__",
):  # a process of its own; in tests a fixture adds it and takes it away
    base.PREDICTORS["stub"] = stub.__name__

SMALL = ("--model", "stub", "--output-size", "model", "--clip-tries", "3", "--table", "md")


def write_clip(path: Path, num_frames: int, seed: int = 0) -> Path:
    """A clip of 160x96 pixels of the box world, or of another part of its path."""
    import numpy as np

    from tests.video.clips import encode

    world = BoxWorld((96, 160))
    frames = np.stack([(world.rgb(t + 20 * seed).numpy() * 255).astype(np.uint8) for t in range(num_frames)])
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode(path, frames)


def start(*words: object, **options: object) -> subprocess.Popen[str]:
    """A batch, or any command, in a process of its own; options become those of the stub."""
    extra = [f"--model-option={name}={value}" for name, value in options.items()]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), *map(str, words), *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def run(*words: object, **options: object) -> tuple[int, str, str]:
    """Exit code and both outputs."""
    process = start(*words, **options)
    output, error = process.communicate(timeout=300)
    return process.returncode, output, error


if __name__ == "__main__":
    from geo4d.apps.cli import main

    sys.exit(main())
