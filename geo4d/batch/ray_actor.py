"""What runs in an actor of Ray: the model once, then task after task; a second thread says how far it has come."""

import os
import pickle
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geo4d.batch.engine import Job


class RayWorker:
    """Holds a model. Its methods are called by the engine, ``ready`` and ``run`` one at a time, ``stage`` beside them.

    Args:
        versions: of the coordinator, by package.
        payload: the pickled job and its settings, opened only where versions agree.
        threads: numerical threads.
    """

    def __init__(self, versions: Mapping[str, str], payload: bytes, threads: int) -> None:
        self._versions, self._payload, self._threads = dict(versions), payload, threads
        self._stage = ("", 0, 0, 0)

    def ready(self) -> tuple[Any, ...]:
        """Load the model: ``("ready", identity, what this worker is)`` or ``("refused", exit code, reason)``."""
        from geo4d.errors import BatchError, explain
        from geo4d.results.provenance import versions

        here = {**versions(), "ray": ray_version()}
        different = [
            f"{name} {here.get(name)} there, {text} here"
            for name, text in self._versions.items()
            if here.get(name) != text
        ]
        if different:
            return (
                "refused",
                BatchError.exit_code,
                f"the Ray worker on {socket.gethostname()} has other versions than this process "
                f"({'; '.join(different)}); results would differ: install the same ones on all nodes",
            )
        try:
            job, settings = pickle.loads(self._payload)
            self._set_threads()
            self._job: Job = job
            self._loaded = job.load(settings)
        except Exception as error:
            return ("refused", *explain(error))
        about = {"process": os.getpid(), "host": socket.gethostname(), "gpus": _visible_gpus()}
        return ("ready", self._loaded.identity, about)

    def run(self, task: Any, places: tuple[str, ...]) -> tuple[Any, ...]:
        """A task: ``("ended", note)``, or ``("unseen", host, path)`` where this node does not see its files.

        Args:
            places: files and folders that the coordinator sees.
        """
        from geo4d.batch.worker import Stages

        for place in places:
            if not Path(place).exists():
                return ("unseen", socket.gethostname(), place)
        self._set_threads()  # methods may come on other threads, and each has a number of its own
        count = self._stage[3]

        def note(stage: str, done: int, total: int) -> None:
            nonlocal count
            count += 1
            self._stage = (stage, done, total, count)

        self._stage = ("", 0, 0, count)
        return ("ended", self._job.run(self._loaded, task, Stages(note)))

    def stage(self) -> tuple[str, int, int, int]:
        """The stage, how much of it is done and there is, and a number that rises with every progress."""
        return self._stage

    def _set_threads(self) -> None:
        from geo4d.batch.worker import set_threads

        set_threads(self._threads)


def ray_version() -> str:
    """Of the installed Ray."""
    import ray

    return str(ray.__version__)


def _visible_gpus() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")
