"""The engine ``local``: processes on this machine, each with the model, its share of the threads and a GPU of its own."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from geo4d.batch.engine import Event, Job, Named, stalled
from geo4d.batch.worker import work_and_leave
from geo4d.errors import BatchError, ResourceError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

STARTS = 2
"""How often in a row a worker may die before its model is loaded."""

_GRACE_S = 20.0


class Worker:
    """One process, and what the coordinator knows about it."""

    def __init__(
        self,
        number: int,
        job: Job,
        settings: Mapping[str, Any],
        threads: int,
        gpu: str | None,
        cpus: Sequence[int] = (),
    ) -> None:
        self.number = number
        self.task: Named | None = None
        self.ready = self.ended_for_stalling = False
        self.stage = ""
        self.moved = time.monotonic()
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        if gpu is not None:
            variables["CUDA_VISIBLE_DEVICES"] = gpu
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=work_and_leave,
            args=(theirs, job, settings, threads, cpus),
            name=f"worker {number}",
            daemon=True,
        )
        with _environment(variables):
            self.process.start()
        theirs.close()

    def death(self) -> tuple[int, str]:
        """Exit code and how it ended, for a process that has ended."""
        self.process.join()
        code = self.process.exitcode or 0
        during = f" during {self.stage}" if self.stage else ""
        if code >= 0:
            return max(code, 1), f"its process ended with exit code {code}{during}"
        name = signal.Signals(-code).name
        guess = " (killed from outside, or out of memory)" if name == "SIGKILL" else ""
        return 128 - code, f"its process was ended by {name}{guess}{during}"


class LocalEngine:
    """Worker processes. Use as a context manager; leaving it ends them.

    Args:
        count: of workers.
        job: what they do.
        settings: keywords for ``job.load``.
        threads: numerical threads of each; None divides the CPUs.
        stall_s: seconds without progress after which a worker with a task is ended; None lets it be.
    """

    def __init__(
        self,
        count: int,
        job: Job,
        settings: Mapping[str, Any],
        *,
        threads: int | None = None,
        stall_s: float | None = None,
    ) -> None:
        self.count = count
        self.threads = threads or share_threads(count)
        self._job, self._settings, self._stall_s = job, settings, stall_s
        self._gpus = find_gpus(settings.get("device"))
        self._cpus = [] if self._gpus else share_cpus(count, self.threads)
        self._workers: dict[int, Worker] = {}
        self._failed_starts = 0

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all workers; those in the middle of a clip keep its finished windows."""
        for worker in self._workers.values():
            worker.pipe.close()  # an idle one ends
            if worker.task is not None or not worker.ready:
                worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def start(self, number: int) -> None:
        """As in ``Engine``."""
        gpu = self._gpus[number % len(self._gpus)] if self._gpus else None
        cpus = self._cpus[number % len(self._cpus)] if self._cpus else ()
        self._workers[number] = Worker(number, self._job, self._settings, self.threads, gpu, cpus)

    def idle(self) -> list[int]:
        """As in ``Engine``."""
        return [w.number for w in self._workers.values() if w.ready and w.task is None]

    def submit(self, number: int, task: Named) -> None:
        """As in ``Engine``."""
        worker = self._workers[number]
        assert worker.ready
        assert worker.task is None
        worker.task, worker.stage, worker.moved = task, "", time.monotonic()
        try:
            worker.pipe.send(task)
        except OSError:
            return  # it has just died, which is the next event

    def kill(self, name: str) -> None:
        """As in ``Engine``."""
        for worker in self._workers.values():
            if worker.task is not None and worker.task.name == name:
                worker.process.kill()

    def wait(self, timeout_s: float) -> list[Event]:
        """As in ``Engine``."""
        watched: dict[Any, Worker] = {}
        for worker in self._workers.values():
            watched[worker.pipe] = watched[worker.process.sentinel] = worker
        events = []
        for worker in {
            watched[item].number: watched[item] for item in wait(list(watched), timeout_s)
        }.values():
            events += list(self._read(worker))
        self._end_stalled()
        return events

    def _end_stalled(self) -> None:
        """End workers that stand still; that they died is read from their pipes."""
        for worker in self._workers.values():
            if self._stall_s is None or worker.task is None or worker.ended_for_stalling:
                continue
            if time.monotonic() - worker.moved > self._stall_s:
                worker.ended_for_stalling = True
                worker.process.kill()

    def _read(self, worker: Worker) -> Iterator[Event]:
        try:
            while worker.pipe.poll():
                kind, *rest = worker.pipe.recv()
                if kind == "stage":
                    worker.stage, worker.moved = f"{rest[0]} ({rest[1]} of {rest[2]})", time.monotonic()
                elif kind == "ready":
                    worker.ready, self._failed_starts = True, 0
                    yield Event("ready", worker.number, note=rest[0])
                elif kind == "refused":
                    raise BatchError(rest[1], rest[0])
                else:
                    task, worker.task = worker.task, None
                    yield Event("ended", worker.number, task, note=rest[0])
        except (EOFError, OSError):
            pass
        else:
            if worker.process.is_alive():
                return
        yield self._replace(worker)

    def _replace(self, worker: Worker) -> Event:
        """A new worker for one whose pipe or process ended."""
        code, reason = worker.death()
        if worker.ended_for_stalling and self._stall_s is not None:
            code, reason = stalled(self._stall_s, worker.stage)
        worker.pipe.close()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ResourceError(
                    f"workers die before they have loaded the model: {reason}; use fewer --workers or a smaller model"
                )
        self.start(worker.number)
        return Event("died", worker.number, worker.task, exit_code=code, reason=reason)


def share_threads(workers: int) -> int:
    """Numerical threads of each worker: the CPUs that this process may use, divided; never more than OMP_NUM_THREADS."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = int(asked) if asked.isdecimal() and int(asked) else cpus
    return max(1, min(most, cpus // workers))


def share_cpus(workers: int, threads: int) -> list[tuple[int, ...]]:
    """CPUs of each worker, where they share out all that there are: its threads then wake each other on the same one.

    Empty where they leave some, or are more: then the system has something to choose.
    """
    if workers < 2 or not hasattr(os, "sched_getaffinity"):
        return []
    cpus = sorted(os.sched_getaffinity(0))
    if workers * threads != len(cpus):
        return []
    return [tuple(cpus[i : i + threads]) for i in range(0, len(cpus), threads)]


def find_gpus(device: str | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is set to for workers in turn; empty where they take no GPU of their own.

    Args:
        device: as the user gave it; one with a number is meant for all workers.
    """
    if device not in (None, "cuda") or not _has_driver():
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _has_driver() -> bool:
    """Whether a driver of GPUs is there. Torch knows more, but takes a second to load: it is asked where one is."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        with suppress(OSError):
            ctypes.CDLL(library)
            return True
    return Path("/dev/kfd").exists()  # AMD's


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment that a process is started with: libraries read the number of threads when they are loaded."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
