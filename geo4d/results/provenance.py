"""Where a result comes from and what it cost: versions, machine, stage times, peak memory."""

import functools
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from geo4d import __version__

PACKAGES = ("torch", "numpy", "scipy", "av", "opencv-python-headless", "zarr")


def versions() -> dict[str, str]:
    """Of geo4d, Python and the packages that results depend on; FFmpeg's libraries come with ``av``."""
    found = {package: _version(package) for package in PACKAGES}
    return {"geo4d": __version__, "python": platform.python_version(), **found}


@functools.cache
def _version(package: str) -> str:
    """Read once: that of a running process does not change, and looking takes a millisecond."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def machine() -> dict[str, str | int]:
    """Kind of machine, nothing that identifies it."""
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count() or 1}


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class StageClock:
    """Wall time and processor time per named stage, seconds; inner stages do not count for outer ones."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = (time.perf_counter(), time.process_time())

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._charge()
        self._open.append(stage)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        """Add the time since the last change to the innermost stage."""
        now = (time.perf_counter(), time.process_time())
        if self._open:
            stage = self._open[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now[0] - self._since[0]
            self.cpu_seconds[stage] = self.cpu_seconds.get(stage, 0.0) + now[1] - self._since[1]
        self._since = now
