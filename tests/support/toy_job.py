"""A job for workers of any engine, without a model: it answers, gets on, hangs, dies or fails to load as it is told."""

import os
import signal
import time
from dataclasses import dataclass
from types import SimpleNamespace

from geo4d.batch.engine import Job
from geo4d.errors import CheckpointError


@dataclass(frozen=True)
class ToyTask:
    """What to do: ``answer``, ``steps`` (so many, half a second each), ``hang`` or ``die`` (by SIGKILL)."""

    name: str
    do: str = "answer"
    count: int = 0
    path: str = ""


def load(settings):
    if settings.get("refuse"):
        raise CheckpointError("no such weights")
    if settings.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    about = {"process": os.getpid(), "threads": threads, "niceness": os.nice(0)}
    return SimpleNamespace(identity={"settings": dict(settings), **about})


def run(loaded, task, on_progress):
    if task.do == "steps":
        for step in range(task.count):
            on_progress("stepping", step, task.count)
            time.sleep(0.5)
    if task.do == "hang":
        on_progress("hanging", 1, 2)
        time.sleep(600)
    if task.do == "die":
        on_progress("dying", 1, 2)
        time.sleep(task.count)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return {"state": "done", "name": task.name}


TOY_JOB = Job(load, run)
