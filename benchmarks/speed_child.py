"""``geo4d`` as a user starts it, with a note of the seconds that the network itself took: a part of ``speed.py``.

    python benchmarks/speed_child.py RECORD.json reconstruct CLIP -o OUT ...

Nothing is imported before the command asks for it: the bundled model's ``predict`` is wrapped when its module is loaded.
"""

import functools
import importlib.abc
import json
import sys
import threading
import time
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

PIPELINE = "geo4d.models.tiny.pipeline"


class Stopwatch:
    """Seconds inside the outermost calls of ``predict``: by the clock, and of the calling thread's processor."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.calls = 0
        self._inside = threading.local()

    def wrap(self, function: Any) -> Any:
        @functools.wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            if getattr(self._inside, "yes", False):
                return function(*arguments, **keywords)
            self._inside.yes, wall, cpu = True, time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **keywords)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += time.thread_time() - cpu
                self.calls += 1
                self._inside.yes = False

        return timed


class Wrapping(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the pipeline of the bundled model and wraps every ``predict`` and ``predict_batch`` that it defines."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._spec: ModuleSpec | None = None

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != PIPELINE:
            return None
        self._spec = PathFinder.find_spec(fullname, path)
        if self._spec is None:
            return None
        spec = ModuleSpec(fullname, self, origin=self._spec.origin)
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        assert self._spec is not None
        assert self._spec.loader is not None
        self._spec.loader.exec_module(module)
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and cls.__module__ == PIPELINE:
                for name in ("predict", "predict_batch"):
                    if name in vars(cls):
                        setattr(cls, name, self._watch.wrap(vars(cls)[name]))


def peak_mb() -> float | None:
    """Largest resident memory of this process; None where the system does not tell.

    Not that of ``getrusage``: there a child begins with what its parent held.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    (line,) = [line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024)


def main() -> int:
    record, *words = sys.argv[1:]
    watch = Stopwatch()
    sys.meta_path.insert(0, Wrapping(watch))
    from geo4d.apps.cli import main as command

    code = command(words)
    found = {
        "network_wall_s": watch.wall,
        "network_thread_s": watch.cpu,
        "calls": watch.calls,
        "peak_mb": peak_mb(),
    }
    Path(record).write_text(json.dumps(found), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
