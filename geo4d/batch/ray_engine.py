"""The engine ``ray``: actors on the nodes of a Ray cluster, each with the model and the CPUs and GPUs it was given.

Tasks, notes and stages go through Ray; videos, windows and results go through the file system that all nodes share.
"""

import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geo4d.batch.engine import Event, Job, Named, stalled
from geo4d.batch.local import STARTS, THREAD_VARIABLES
from geo4d.batch.ray_actor import RayWorker, ray_version
from geo4d.batch.settings import WorkerSettings
from geo4d.errors import BatchError, MissingExtraError, ResourceError
from geo4d.results.provenance import versions

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between questions to a worker how far it has come."""

PATIENCE_S = 60.0
"""Seconds without any worker after which it is said that Ray has no room for one."""

STORE_BYTES = 80 * 2**20
"""Object store of a Ray that is started here: about the least that Ray takes, since no pixels go through it."""

PLACES = ("path", "output", "folder")
"""Attributes of tasks that name files or folders which workers must see."""


@dataclass
class Actor:
    """One actor, and what the coordinator knows about it.

    Attributes:
        pending: becomes what the actor answers to ``ready`` or ``run``, unless it is idle.
        asked: becomes its answer to ``stage``.
    """

    number: int
    handle: Any
    pending: Future[Any] | None
    task: Named | None = None
    ready: bool = False
    where: str = ""
    stage: str = ""
    asked: Future[Any] | None = None
    count: int = -1
    ended_for_stalling: bool = False
    moved: float = field(default_factory=time.monotonic)


class RayEngine:
    """Actors of Ray. Use as a context manager; leaving it ends them, and a Ray that was started for it.

    A Ray that this process is connected to already is used and left as it is.

    Args:
        how: workers, address and resources.
        job: what they do.
        settings: keywords for ``job.load``.
        stall_s: seconds without progress after which a worker with a task is ended; None lets it be.
    """

    def __init__(
        self, how: WorkerSettings, job: Job, settings: Mapping[str, Any], *, stall_s: float | None = None
    ) -> None:
        self.count, self.cpus = how.workers, how.worker_cpus or 1
        self.gpus = how.worker_gpus
        self._how, self._settings, self._stall_s = how, settings, stall_s
        # Processes on the nodes stand in other folders.
        absolute = {key: v.absolute() if isinstance(v, Path) else v for key, v in settings.items()}
        self._payload = pickle.dumps((job, absolute))
        self._actors: dict[int, Actor] = {}
        self._failed_starts, self._asked_at = 0, 0.0
        self._since_ready, self._said = time.monotonic(), False
        self._ours = False

    def __enter__(self) -> "RayEngine":
        """
        Raises:
            MissingExtraError: Ray is not installed.
            BatchError: the cluster does not answer, or is of another version.
            ResourceError: a Ray that is started here cannot have room for one worker.
        """
        with _signal_handlers_kept():
            self._import()
        with _signal_handlers_kept():
            self._connect()
        if self.gpus is None:
            has = self._ray.cluster_resources().get("GPU", 0) > 0
            self.gpus = 1.0 if has and self._settings.get("device") in (None, "cuda") else 0.0
        self._require_room()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        if self._ours:
            self._ray.shutdown()

    def stop(self) -> None:
        """As in ``Engine``. Actors end at once; what they have finished is on the disk."""
        for actor in self._actors.values():
            self._ray.kill(actor.handle)
        self._actors.clear()

    def start(self, number: int) -> None:
        """As in ``Engine``."""
        variables = dict.fromkeys(THREAD_VARIABLES, str(self.cpus))
        variables["MALLOC_ARENA_MAX"] = "1"  # as ``keep_one_heap``, before Ray's own threads take heaps
        handle = (
            self._ray.remote(RayWorker)
            .options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=0,
                max_concurrency=2,  # the second thread answers ``stage``
                runtime_env={"env_vars": variables},
            )
            .remote({**versions(), "ray": ray_version()}, self._payload, self.cpus)
        )
        self._actors[number] = Actor(number, handle, handle.ready.remote().future())

    def idle(self) -> list[int]:
        """As in ``Engine``."""
        return [actor.number for actor in self._actors.values() if actor.ready and actor.task is None]

    def submit(self, number: int, task: Named) -> None:
        """As in ``Engine``."""
        actor = self._actors[number]
        assert actor.ready
        assert actor.task is None
        places = [str(getattr(task, name)) for name in PLACES if hasattr(task, name)]
        seen = tuple(place for place in places if Path(place).exists())
        actor.task, actor.stage, actor.asked = task, "", None
        actor.moved = time.monotonic()
        actor.pending = actor.handle.run.remote(task, seen).future()

    def kill(self, name: str) -> None:
        """As in ``Engine``."""
        for actor in self._actors.values():
            if actor.task is not None and actor.task.name == name:
                self._ray.kill(actor.handle)

    def wait(self, timeout_s: float) -> list[Event]:
        """As in ``Engine``."""
        deadline = time.monotonic() + timeout_s
        while True:
            events = self._ask_stages()
            self._end_stalled()
            events += self._finished(0.0 if events else max(0.0, min(LOOK_S, deadline - time.monotonic())))
            if events or time.monotonic() >= deadline:
                return events
            self._say_if_nobody_comes()

    def _finished(self, timeout_s: float) -> list[Event]:
        """What actors answered, or that they died.

        Waits in Python: Ray's own waiting makes a KeyboardInterrupt of whatever a signal's handler raises.
        """
        waited = {actor.pending: actor for actor in self._actors.values() if actor.pending is not None}
        if not waited:
            time.sleep(timeout_s)
            return []
        done = wait(waited, timeout_s, "FIRST_COMPLETED").done
        return [event for answer in done for event in self._read(waited[answer], answer)]

    def _read(self, actor: Actor, answer: Future[Any]) -> Iterator[Event]:
        actor.pending = None
        try:
            kind, *rest = answer.result()
        except self._ray.exceptions.RayActorError as error:
            yield self._replace(actor, error)
            return
        if kind == "refused":
            raise BatchError(rest[1], rest[0])
        if kind == "unseen":
            raise BatchError(
                f"the Ray node {rest[0]} does not see {rest[1]}, which is there on this machine; sources and output of "
                "workers on other machines must lie on a file system that all of them share, at the same path"
            )
        if kind == "ready":
            actor.ready, self._failed_starts = True, 0
            actor.where = f"process {rest[1]['process']} on {rest[1]['host']}"
            yield Event("ready", actor.number, note=rest[0])
        else:
            task, actor.task = actor.task, None
            yield Event("ended", actor.number, task, note=rest[0])

    def _replace(self, actor: Actor, error: Exception) -> Event:
        """A new actor, wherever there is room, for one that died or whose node did."""
        code, reason = 1, _reason(error, actor)
        if actor.ended_for_stalling and self._stall_s is not None:
            code, reason = stalled(self._stall_s, actor.stage)
        if not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ResourceError(
                    f"Ray workers die before they have loaded the model: {reason}; is geo4d {versions()['geo4d']} with "
                    "the extra ray installed on all nodes, and is there memory for the model?"
                ) from error
        self.start(actor.number)
        return Event("died", actor.number, actor.task, exit_code=code, reason=reason)

    def _ask_stages(self) -> list[Event]:
        """Ask workers how far they have come, and read the last answers; idle ones that died are found in this way."""
        events: list[Event] = []
        if time.monotonic() - self._asked_at < LOOK_S / 2:
            return events
        self._asked_at = time.monotonic()
        for actor in [actor for actor in self._actors.values() if actor.ready]:
            try:
                if actor.asked is not None and not self._note_stage(actor):
                    continue
            except self._ray.exceptions.RayActorError as error:
                if actor.pending is None:  # else what is pending tells it
                    events.append(self._replace(actor, error))
                continue
            actor.asked = actor.handle.stage.remote().future()
        return events

    def _note_stage(self, actor: Actor) -> bool:
        """Whether the last question was answered; a new stage counts as progress."""
        if actor.asked is None or not actor.asked.done():
            return False
        stage, part, total, count = actor.asked.result()
        if count != actor.count and stage and actor.task is not None:
            actor.stage, actor.count = f"{stage} ({part} of {total})", count
            actor.moved = time.monotonic()
        return True

    def _end_stalled(self) -> None:
        for actor in self._actors.values():
            if self._stall_s is None or actor.task is None or actor.ended_for_stalling:
                continue
            if time.monotonic() - actor.moved > self._stall_s:
                actor.ended_for_stalling = True
                self._ray.kill(actor.handle)

    def _say_if_nobody_comes(self) -> None:
        """Actors that nobody has room for wait without a word, and a cluster may grow: said, not refused."""
        now = time.monotonic()
        if any(actor.ready for actor in self._actors.values()):
            self._since_ready, self._said = now, False
        elif now - self._since_ready > PATIENCE_S and not self._said:
            self._said = True
            log.warning(
                "no Ray worker for %.0f s; each needs %d CPUs and %g GPUs on one node; free now: %s",
                now - self._since_ready,
                self.cpus,
                self.gpus,
                {k: v for k, v in self._ray.available_resources().items() if k in ("CPU", "GPU")},
            )

    def _import(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "--engine ray") from error
        self._ray: Any = ray

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            return
        address = self._how.ray_address or os.environ.get("RAY_ADDRESS") or "local"
        mine: dict[str, Any] = {}
        if address == "local":
            mine = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
            os.environ.setdefault(
                "RAY_worker_niceness", "0"
            )  # else 15: next to nothing where others compute, too
        require_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **mine)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise BatchError(
                f"expected a Ray cluster of Ray {ray.__version__} and the same Python at {address}, got: {error}; check "
                "--ray-address or RAY_ADDRESS, the versions of the nodes and, where the cluster asks for a token, "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from error
        self._ours = True

    def _require_room(self) -> None:
        """
        Raises:
            ResourceError: no node has room for one worker, and nobody will add one.
        """
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= (self.gpus or 0) for node in nodes):
            return
        need = f"a worker needs {self.cpus} CPUs and {self.gpus:g} GPUs on one node"
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        if self._ours and not (self._how.ray_address or os.environ.get("RAY_ADDRESS")):
            raise ResourceError(f"{need}, this machine has {have}; use less --worker-cpus or --worker-gpus")
        log.warning("%s, the nodes have %s; waiting until the cluster grows", need, have)


def require_answer(address: str, timeout_s: float = 10.0) -> None:
    """
    Raises:
        BatchError: nobody listens at a ``HOST:PORT``, which Ray would wait for without an end.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # auto, local, a session of this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, OverflowError) as error:
        raise BatchError(
            f"expected a Ray cluster at {address}, nobody answers there: {error}; check --ray-address or RAY_ADDRESS"
        ) from error


def _reason(error: Exception, actor: Actor) -> str:
    """What Ray says about a death, in one line, without its list of what it might have been."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("The actor is dead", "The node"))), lines[-1])
    said = said.partition("Some common causes")[0].strip().rstrip(".")
    during = f" during {actor.stage}" if actor.stage else ""
    return f"its Ray actor{f' ({actor.where})' if actor.where else ''} died{during}: {said[:400]}"


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it is imported and again when it begins; the command's own way stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
