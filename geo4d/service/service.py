"""The service without HTTP: takes clips, lets processes work on them, keeps what they make. Start reading here.

``clip -> check -> job in the store -> queue -> process with the model -> result, pictures and points -> exports``.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from geo4d.batch.local import THREAD_VARIABLES, find_gpus, share_threads
from geo4d.config import RunConfig, make_config
from geo4d.errors import Geo4DError
from geo4d.service.child import Setup
from geo4d.service.crew import Crew, Died, Ticket
from geo4d.service.exports import Exports
from geo4d.service.jobs import Job, source_of
from geo4d.service.metrics import Metrics
from geo4d.service.refusals import Refusal, status_of
from geo4d.service.settings import ServiceSettings
from geo4d.service.store import JobStore
from geo4d.service.tasks import Check, Work

log = logging.getLogger(__name__)

_LOAD_S = 600.0
_TIDY_S = 30.0


class Service:
    """Jobs, and the processes that work on them. Use as a context manager.

    Args:
        settings: how it is run.
        run: keywords of ``reconstruct``: the model, and what holds for all jobs that do not say otherwise.
        clock: seconds since 1970.
    Raises:
        Geo4DError: the folder is not to be had, or the model cannot be loaded.
        ValueError: nonsensical settings.
    """

    def __init__(
        self, settings: ServiceSettings, run: Mapping[str, Any], clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.config = make_config(**{k: v for k, v in run.items() if k not in ("model", "model_options")})
        self.store = JobStore(settings.folder.absolute(), clock)
        self.metrics = Metrics()
        threads = share_threads(settings.workers)
        self.workers = Crew(list(_setups(settings.workers, run, threads)), eager=True)
        helper = Setup(None, 1, dict.fromkeys(THREAD_VARIABLES, "1"))
        self.checker, exporter = Crew([helper], eager=False), Crew([helper], eager=False)
        self.exports = Exports(self.store, exporter, settings.job_s)
        self._crews = (self.workers, self.checker, exporter)
        self.uploading = self.taken_up = 0
        self._mutex = threading.Lock()
        self._tickets: dict[str, Ticket] = {}
        self._stopped = threading.Event()
        self._tidier = threading.Thread(target=self._tidy, name="geo4d service tidy", daemon=True)

    def __enter__(self) -> "Service":
        self.store.__enter__()
        try:
            for crew in self._crews:
                crew.__enter__()
            self.workers.wait_ready(_LOAD_S)
        except BaseException:
            self.__exit__()
            raise
        again = self.store.waiting()
        self.taken_up = len(again)
        for job in again:
            self._queue(job)
        self._tidier.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the processes; what they worked on goes on with the next start, from its finished windows."""
        self._stopped.set()
        for crew in self._crews:
            if crew.is_started:
                crew.__exit__()
        self.store.__exit__()

    @property
    def is_stopping(self) -> bool:
        """The service ends."""
        return self._stopped.is_set()

    # taking clips ---------------------------------------------------------------------------------------------------

    @contextmanager
    def slot(self, num_bytes: int = 0) -> Iterator[Path]:
        """A folder for a clip that comes in, in whose ``source`` it belongs; removed unless ``accept`` took it.

        Args:
            num_bytes: that the clip is said to have; 0 where that is not known.
        Raises:
            Refusal: it is too large, or there is no room for it in the queue or on the disk.
        """
        self.require_size(num_bytes)
        with self._mutex:
            self._require_room(num_bytes)
            self.uploading += 1
        try:
            place = self.store.new_place()
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
        finally:
            with self._mutex:
                self.uploading -= 1

    def require_size(self, num_bytes: int) -> None:
        """
        Raises:
            Refusal: a clip of that many bytes is too large.
        """
        if num_bytes > self.settings.max_bytes:
            raise Refusal(413, f"expected a clip of at most {self.settings.max_mb:g} MB, got more", code=3)

    def _require_room(self, num_bytes: int) -> None:
        if self.is_stopping:
            raise Refusal(503, "the service ends; try again when it is back", retry_s=30)
        if self.workers.fault is not None and not self.workers.ready:
            raise Refusal(503, f"no process of the service works: {self.workers.fault}", retry_s=60)
        waiting = len(self.store.waiting())
        if waiting + self.uploading >= self.settings.queue:
            raise Refusal(
                429,
                f"the queue is full: {waiting} jobs wait, {self.uploading} come in",
                retry_s=self._wait_s(),
            )
        if self.uploading >= self.settings.uploads:
            raise Refusal(429, f"{self.uploading} uploads are under way, more are not taken", retry_s=2)
        free = shutil.disk_usage(self.store.folder).free
        if free - num_bytes < self.settings.min_free_mb * 1e6:
            raise Refusal(
                507,
                f"the disk of the service has {free / 1e6:.0f} MB left; delete jobs, or wait until old ones go",
            )

    def _wait_s(self) -> float:
        """Seconds until the queue has moved on by a job, roughly."""
        spans = [j.ended_s - j.started_s for j in self.store.all()[:50] if j.ended_s and j.started_s]
        usual = sorted(spans)[len(spans) // 2] if spans else 30.0
        return min(max(usual / self.settings.workers, 2.0), 600.0)

    def check(self, source: Path, options: Mapping[str, Any]) -> Ticket:
        """Open a clip in a process of its own, which a broken file may take with it; ``outcome_of`` its note."""
        config = self.run_config(options)
        task = Check(source, config, self.settings.max_frames)
        return self.checker.submit(Ticket(task, self.settings.upload_s))

    def run_config(self, options: Mapping[str, Any]) -> RunConfig:
        """The settings of a job.

        Raises:
            Refusal: nonsensical ones.
        """
        try:
            return replace(self.config, **options)
        except ValueError as error:
            raise Refusal(422, str(error), code=2) from error

    def accept(self, place: Path, name: str, num_bytes: int, options: Mapping[str, Any]) -> Job:
        """Make a job of a clip that came in and was checked."""
        job = self.store.add(place, name, num_bytes, dict(options))
        self.metrics.taken(num_bytes)
        self._queue(job)
        return job

    # working --------------------------------------------------------------------------------------------------------

    def _queue(self, job: Job) -> None:
        folder = self.store.place(job.id)
        task = Work(folder, source_of(folder, job), job.options)
        ticket = Ticket(
            task,
            self.settings.job_s,
            on_note=lambda *words: self._hear(job.id, *words),
            on_start=lambda: self._begin(job.id),
        )
        self._tickets[job.id] = ticket
        ticket.outcome.add_done_callback(lambda outcome: self._end(job.id, outcome))
        self.workers.submit(ticket)

    def _begin(self, id: str) -> bool:
        job = self.store.get(id)
        starts = job.starts + 1 if job is not None else 1
        now = self.store.clock()
        began = self.store.change(id, only=["queued"], state="running", started_s=now, starts=starts)
        return began is not None

    def _hear(self, id: str, kind: str, *words: Any) -> None:
        if kind == "plan":
            self.store.change(id, plan=words[0])
        else:
            self.store.change(id, keep=False, stage=words[0], done=words[1], total=words[2])

    def _end(self, id: str, outcome: "Future[Mapping[str, Any]]") -> None:
        """Note what became of a job."""
        self._tickets.pop(id, None)
        job = self.store.get(id)
        if job is None:
            return
        ended: dict[str, Any] = {"ended_s": self.store.clock(), "stage": "", "done": 0, "total": 0}
        error = outcome.exception()
        if isinstance(error, Died) and error.why == "stop":
            if job.state == "running":  # not its fault
                self.store.change(id, state="queued", starts=job.starts - 1, stage="", done=0, total=0)
            return
        if job.state == "cancelled" or (isinstance(error, Died) and error.why == "cancel"):
            self.store.change(id, state="cancelled", **ended)
            self.store.clear(id)
        elif error is not None:
            code = getattr(error, "exit_code", 70)
            reason = str(error) if isinstance(error, Geo4DError) else f"this is a bug: {error!r}"
            self.store.change(id, state="failed", exit_code=code, reason=reason, **ended)
            self.store.clear(id)
        else:
            note = outcome.result()
            done = "summary" in note
            fields: dict[str, Any] = {name: note.get(name) for name in ("summary", "exit_code", "reason")}
            state = "done" if done else "failed"
            self.store.change(id, state=state, warnings=tuple(note["warnings"]), **fields, **ended)
            if not done:
                self.store.clear(id)
        self.metrics.ended(self.store.get(id))

    # ending ---------------------------------------------------------------------------------------------------------

    def cancel(self, id: str) -> Job:
        """End a job that waits or runs; its files are removed, its record stays.

        Raises:
            Refusal: there is none, or it has ended.
        """
        job = self.require(id)
        fields: dict[str, Any] = {"ended_s": self.store.clock(), "stage": "", "done": 0, "total": 0}
        changed = self.store.change(id, only=["queued", "running"], state="cancelled", **fields)
        if changed is None:
            raise Refusal(409, f"the job has ended already: {self.require(id).state}")
        ticket = self._tickets.get(id)
        if ticket is not None:
            self.workers.cancel(ticket)
        if job.state == "queued":
            self.store.clear(id)
        return changed

    def delete(self, id: str) -> None:
        """End a job if it has not ended, and remove all of it.

        Raises:
            Refusal: there is none.
        """
        ticket = self._tickets.get(id)
        if not self.require(id).is_ended:
            self.cancel(id)
        tickets = [*([ticket] if ticket else []), *self.exports.cancel(id)]
        wait([t.outcome for t in tickets if t.outcome.running()], 60)  # nobody writes there any more
        self.store.delete(id)

    def require(self, id: str) -> Job:
        """
        Raises:
            Refusal: there is no such job.
        """
        job = self.store.get(id)
        if job is None:
            raise Refusal(404, "there is no such job; it may have been removed")
        return job

    def _tidy(self) -> None:
        """Remove old jobs from time to time."""
        while not self._stopped.wait(min(_TIDY_S, self.settings.keep_h * 3600 / 4)):
            try:
                self.expire()
            except OSError as error:
                log.warning("old jobs are not removed: %s", error)

    def expire(self) -> list[str]:
        """Remove jobs that ended longer ago than they are kept; their ids."""
        return self.store.expire(self.settings.keep_h * 3600)


def outcome_of(note: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task's note, if it went well.

    Raises:
        Refusal: it did not.
    """
    if note["exit_code"]:
        raise Refusal(status_of(note["exit_code"], note["kind"]), note["reason"], code=note["exit_code"])
    return note


def _setups(count: int, run: Mapping[str, Any], threads: int) -> Iterator[Setup]:
    """What each worker is: its share of the threads, and a GPU of its own where there are several."""
    gpus = find_gpus(run.get("device")) if count > 1 else []
    for number in range(count):
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        if gpus:
            variables["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        yield Setup(run, threads, variables)
