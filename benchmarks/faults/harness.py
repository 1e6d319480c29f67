"""What the reliability tests share: sizes, outcomes, the registry, and commands in processes of their own.

The process that runs the tests has everything loaded; each case is a fork of it, so a crash, a hang or a memory limit
ends that case alone.
"""

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent

DOCUMENTED = set(range(10))
"""Exit codes that docs/reconstruct.md explains, but for interruptions."""


@dataclass(frozen=True)
class Size:
    """How much of everything: ``FULL`` is what claims are made with, ``QUICK`` is for continuous integration."""

    seeds: int = 1000
    cuts: int = 40
    kills: int = 20
    frames: tuple[int, int] = (500, 10_000)
    motion_frames: tuple[int, int] | None = (500, 2000)
    lengths: tuple[int, ...] = (1, 2, 15, 16, 17, 109, 110, 111)
    processes: int = 8
    with_network: bool = True
    installs: bool = True


FULL = Size()
QUICK = Size(
    seeds=70, cuts=6, kills=3, frames=(300, 900), motion_frames=None, lengths=(1, 2, 15, 16, 17), processes=4,
    with_network=False, installs=False,
)  # fmt: skip


@dataclass
class Outcome:
    """What a test found.

    Attributes:
        passed: None where there is nothing to test yet.
        figure: the numbers, in one line.
        notes: what went wrong, one line each.
    """

    passed: bool | None
    figure: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Test:
    """A test: its name, what it is about, when it passes, and the function (folder for its files, size)."""

    name: str
    about: str
    bar: str
    run: Callable[[Path, Size], Outcome]


TESTS: dict[str, Test] = {}


def reliability(
    name: str, about: str, bar: str
) -> Callable[[Callable[[Path, Size], Outcome]], Callable[[Path, Size], Outcome]]:
    """Enter a test into ``TESTS``."""

    def enter(run: Callable[[Path, Size], Outcome]) -> Callable[[Path, Size], Outcome]:
        TESTS[name] = Test(name, about, bar, run)
        return run

    return enter


class Tally:
    """Counts cases and keeps what was wrong with those that failed."""

    def __init__(self) -> None:
        self.total = 0
        self.notes: list[str] = []

    def case(self, name: str, good: bool, what: str = "") -> None:
        self.total += 1
        if not good:
            self.notes.append(f"{name}: {' '.join(what.split())[:240]}")

    def outcome(self, more: str = "") -> Outcome:
        good = self.total - len(self.notes)
        figure = f"{good} of {self.total} as documented" + (f"; {more}" if more else "")
        return Outcome(self.total > 0 and not self.notes, figure, self.notes)


@dataclass(frozen=True)
class Ended:
    """How a process ended. ``code`` is None when a signal ended it; a hang is ended by us."""

    code: int | None
    signal: int | None
    hung: bool
    seconds: float
    peak_mib: int
    out: str
    err: str

    @property
    def told(self) -> bool:
        """A documented code, no traceback, and one error line if there is an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return (
            self.code in DOCUMENTED
            and not self.hung
            and "Traceback" not in self.err
            and len(lines) == (0 if self.code == 0 else 1)
        )

    @property
    def last(self) -> str:
        lines = (self.err.strip() or self.out.strip()).splitlines()
        how = "hung" if self.hung else f"signal {self.signal}" if self.signal else f"code {self.code}"
        return f"{how}: {lines[-1] if lines else ''}"


def forked(run: Callable[[], int | None], *, timeout: float = 120, more_memory: int | None = None) -> Ended:
    """Call a function in a fork of this process; what it returns is the exit code.

    Args:
        timeout: seconds of the processor, or tenth of the time on the clock, after which it counts as hung.
        more_memory: bytes of address space that it may take above what this process has.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = begin(run, out.fileno(), err.fileno(), more_memory)
        hung = False
        while True:
            found, status, usage = os.wait4(child, os.WNOHANG)
            if found:
                break
            # Busy machines make slow children; a child that waits for ever uses no time of the processor.
            if _cpu_seconds(child) > timeout or time.monotonic() - started > 10 * timeout:
                hung = True
                os.kill(child, signal.SIGKILL)
                _, status, usage = os.wait4(child, 0)
                break
            time.sleep(0.01)
        seconds = time.monotonic() - started
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(
        os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        hung,
        seconds,
        usage.ru_maxrss // 1024,
        *texts,
    )


def _cpu_seconds(process: int) -> float:
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def begin(run: Callable[[], int | None], out: int, err: int, more_memory: int | None = None) -> int:
    """Start a function in a fork with its output in open files; its process number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (
            signal.SIGTERM,
            signal.SIGHUP,
        ):  # nohup ignores one of them, and what is ignored stays so
            signal.signal(number, signal.SIG_DFL)
        if more_memory is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + more_memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        code = run() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command(*words: object, timeout: float = 120, more_memory: int | None = None) -> Ended:
    """``geo4d WORDS`` in a fork."""
    from geo4d.apps import cli

    return forked(lambda: cli.main([str(word) for word in words]), timeout=timeout, more_memory=more_memory)


def stub_words(video: object, output: object, *words: object) -> list[str]:
    """Words of a reconstruction with the predictor that knows the truth."""
    fixed = ("--model", "stub", "--quiet", "--output-size", "model", "--tries", "0")
    return ["reconstruct", str(video), "-o", str(output), *fixed, *map(str, words)]


def reconstruct(video: object, output: object, *words: object, **options: float | None) -> Ended:
    return command(*stub_words(video, output, *words), **options)  # type: ignore[arg-type]


def prepare() -> None:
    """Load everything that forks would otherwise load again and again, and enter the model ``stub``."""
    import av  # noqa: F401
    import cv2
    import torch
    import tyro  # noqa: F401
    import zarr  # noqa: F401

    import geo4d.run.reconstruct  # noqa: F401
    from geo4d.models import base
    from tests.support.truth import BoxWorld, TruthPredictor

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    module = types.ModuleType("geo4d_stub")

    class Stub(TruthPredictor):
        """The truth, after a pause: runs then last long enough to be killed at any place."""

        pause_s = 0.0

        def predict(self, window, **rest):  # type: ignore[no-untyped-def]
            time.sleep(self.pause_s)
            return super().predict(window, **rest)

    def load(name, weights=None, device=None, dtype=None, pause_s=0.0, size=(24, 32), **options):  # type: ignore[no-untyped-def]
        model = Stub(BoxWorld(tuple(size)), **{"length": 8, "stride": 4, **options})
        model.pause_s = pause_s
        return model

    module.load = load  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    base.PREDICTORS["stub"] = module.__name__


def arrays_sha256(result: Path) -> str:
    """SHA-256 over the values of all arrays of a result."""
    import hashlib

    import numpy as np
    import zarr

    group = zarr.open_group(result / "arrays.zarr", mode="r")
    digest = hashlib.sha256()
    for name in sorted(group.array_keys()):
        digest.update(name.encode() + np.ascontiguousarray(group[name][...]).tobytes())
    return digest.hexdigest()


def tree_sha256(path: Path) -> str:
    """SHA-256 over the names and contents of a file, or of all files of a folder."""
    import hashlib

    digest = hashlib.sha256()
    for one in [path] if path.is_file() else sorted(path.rglob("*")):
        if one.is_file():
            digest.update(f"{one.relative_to(path)}\0".encode() + one.read_bytes())
    return digest.hexdigest()
