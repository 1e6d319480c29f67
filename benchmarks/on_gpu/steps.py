"""Measured steps within a budget of wall time: each leaves its record as soon as it is done, a failed one a traceback."""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

FINAL = ("done", "failed", "skipped", "crashed")
"""States after which a step is not started again."""

LIMIT_FACTOR, LIMIT_EXTRA = 2.0, 15.0
"""A step that takes longer than this many times what was expected, and these seconds, is stopped."""


@dataclass
class Bench:
    """What the steps share: the device, the size of the run, and networks that more than one of them uses.

    Attributes:
        smallest: everything at the smallest size that still runs every line.
        held: networks by name; ``hold`` makes them when they are first asked for.
    """

    device: torch.device
    smallest: bool = False
    held: dict[str, Any] = field(default_factory=dict)

    def hold(self, name: str, make: Callable[[], Any]) -> Any:
        """The thing of this name, made once."""
        if name not in self.held:
            self.held[name] = make()
        return self.held[name]

    def release(self, *names: str) -> None:
        """Forget these (all without a name) and give their memory back."""
        for name in names or list(self.held):
            self.held.pop(name, None)
        clean(self.device)

    def sync(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def measured(self, into: dict[str, Any], name: str) -> Iterator[None]:
        """Seconds and peak memory of a block, as ``into[name]``; kept also when the block fails."""
        cuda = self.device.type == "cuda"
        if cuda:
            self.sync()
            torch.cuda.reset_peak_memory_stats(self.device)
        row = into[name] = {}
        started = time.perf_counter()
        try:
            yield
        finally:
            self.sync()
            row["seconds"] = round(time.perf_counter() - started, 5)
            if cuda:
                row["peak_gib"] = gib(torch.cuda.max_memory_allocated(self.device))
                row["reserved_gib"] = gib(torch.cuda.max_memory_reserved(self.device))

    def median_seconds(self, work: Callable[[], Any], repeats: int = 3) -> dict[str, Any]:
        """The first call's time, then the median of ``repeats`` more."""
        times = []
        for _ in range(1 + repeats):
            self.sync()
            started = time.perf_counter()
            work()
            self.sync()
            times.append(time.perf_counter() - started)
        return {"first": round(times[0], 5), "median": round(statistics.median(times[1:]), 5), "of": repeats}


@dataclass(frozen=True)
class Step:
    """One measurement.

    Attributes:
        part: the file that its record goes to.
        seconds: expected on an H100, for the decision whether it still fits.
        work: gets the bench and a dict that it fills; what is in there is kept when it fails half way.
        keeps: names of held networks that later steps use; all others are released before the step.
    """

    part: str
    name: str
    seconds: float
    work: Callable[[Bench, dict[str, Any]], None]
    keeps: tuple[str, ...] = ()


class Records:
    """One JSON file for each part, replaced as a whole after every change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, part: str) -> dict[str, Any]:
        """The record of a part; empty where there is none."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.folder / f"{part}.json").read_text(encoding="utf-8"))
            return found
        return {"part": part, "steps": {}}

    def put(self, step: Step, **values: Any) -> None:
        """Change the record of a step."""
        record = self.read(step.part)
        record["steps"].setdefault(step.name, {}).update(values)
        self._write(step.part, record)

    def describe(self, part: str, environment: dict[str, Any]) -> None:
        """State the machine in a part's record."""
        record = self.read(part)
        record.setdefault("environments", []).append(environment)
        self._write(part, record)

    def state(self, step: Step) -> str | None:
        """How far a step came, or None where it was not started."""
        state: str | None = self.read(step.part)["steps"].get(step.name, {}).get("state")
        return state

    def _write(self, part: str, record: dict[str, Any]) -> None:
        path = self.folder / f"{part}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
        os.replace(partial, path)


def run_steps(steps: Sequence[Step], bench: Bench, records: Records, deadline: float) -> bool:
    """Every step that has no final state yet, in order, as far as the time goes.

    Args:
        deadline: on the clock of ``time.time``.
    Returns:
        False when the device no longer answers: a fresh process must go on.
    """
    described: set[str] = set()
    for step in steps:
        if records.state(step) in FINAL:
            continue
        if step.part not in described:
            records.describe(step.part, environment(bench.device))
            described.add(step.part)
        left = deadline - time.time()
        expected = 0.0 if bench.smallest else step.seconds
        if left < max(expected, 1.0):
            records.put(step, state="skipped", reason=f"{left:.0f} s left, {expected:.0f} s expected")
            say(f"skipped  {step.part}: {step.name} ({left:.0f} s left, {expected:.0f} s expected)")
            continue
        bench.release(*(set(bench.held) - set(step.keeps) or {""}))
        if not _run(step, bench, records, left):
            return False
    return True


def _run(step: Step, bench: Bench, records: Records, left: float) -> bool:
    result: dict[str, Any] = {}
    records.put(step, state="running", load=round(os.getloadavg()[0], 1), expected=step.seconds)
    started = time.perf_counter()
    try:
        with time_limit(min(LIMIT_FACTOR * step.seconds + LIMIT_EXTRA, left) if not bench.smallest else left):
            step.work(bench, result)
            bench.sync()
        values: dict[str, Any] = {"state": "done"}
    except Exception as error:
        values = {"state": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
        values["traceback"] = traceback.format_exc()[-6000:]
        bench.held.clear()  # what a failed step left half made is no start for the next
    values |= {"seconds": round(time.perf_counter() - started, 2), "result": result}
    records.put(step, **values)
    say(f"{values['state']:<8} {step.part}: {step.name} {values['seconds']:.1f} s {values.get('error', '')}")
    try:
        clean(bench.device)
        bench.sync()
    except Exception as error:
        say(f"the device does not answer any more: {error}")
        return False
    return True


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in the block after this long."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def environment(device: torch.device) -> dict[str, Any]:
    """The machine and the load on it."""
    import platform

    import numpy

    found: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "device": str(device),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        free, total = torch.cuda.mem_get_info(device)
        found |= {
            "gpu": properties.name,
            "capability": [properties.major, properties.minor],
            "memory_gib": gib(total),
            "free_gib": gib(free),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        }
    return found


def clean(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def gib(count: int | float) -> float:
    """Bytes in GiB."""
    return round(count / 2**30, 3)


def say(text: str) -> None:
    """A line that is there at once."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)
