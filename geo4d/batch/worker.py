"""What runs in a worker process: the model once, then clip after clip, until the pipe or the coordinator ends."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geo4d.batch.engine import Job

OFTEN_S = 1.0
"""Seconds between signs of progress within a stage."""


def work(
    pipe: Connection, job: "Job", settings: Mapping[str, Any], threads: int, cpus: Sequence[int] = ()
) -> None:
    """Take tasks from the pipe, and send back what became of them.

    Sends ``("ready", identity)`` or ``("refused", exit code, reason)`` once, then for each task ``("stage", name, done,
    total)`` as it gets on and ``("ended", note)``.

    Args:
        job: what is done.
        settings: keywords for ``job.load``.
        threads: numerical threads of this process.
        cpus: that it keeps to; empty leaves it where the system puts it.
    """
    if cpus:
        os.sched_setaffinity(0, cpus)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the coordinator decides
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with_coordinator, daemon=True).start()
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    from geo4d.errors import explain

    set_threads(threads)
    try:
        loaded = job.load(settings)
    except Exception as error:
        pipe.send(("refused", *explain(error)))
        return
    pipe.send(("ready", loaded.identity))
    with contextlib.suppress(EOFError, OSError):  # the coordinator closed the pipe
        while True:
            task = pipe.recv()
            pipe.send(("ended", job.run(loaded, task, Stages(lambda *stage: pipe.send(("stage", *stage))))))


def set_threads(threads: int) -> None:
    """Numerical threads of this process, as far as they were not decided when libraries were loaded; and their memory."""
    import cv2
    import torch

    from geo4d.optimise.scratch import keep_one_heap

    keep_one_heap()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def work_and_leave(
    pipe: Connection, job: "Job", settings: Mapping[str, Any], threads: int, cpus: Sequence[int] = ()
) -> None:
    """``work`` as the whole of a process: it ends at once, since those who started it wait for it."""
    from geo4d.errors import leave

    work(pipe, job, settings, threads, cpus)
    leave(0)


class Stages:
    """Says when another stage begins or a window is done, and now and then that a stage gets on.

    Args:
        say: gets the stage, how much of it is done, and how much there is.
    """

    def __init__(self, say: Callable[[str, int, int], object]) -> None:
        self._say = say
        self._last, self._when = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._last or stage == "predict" or now - self._when >= OFTEN_S:
            self._last, self._when = stage, now
            self._say(stage, done, total)


def _end_with_coordinator() -> None:
    """A worker whose coordinator was killed works for nobody: it ends at once, and finished windows stay."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
