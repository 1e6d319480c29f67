"""The jobs of a service: in memory as they are now, in a folder so that they outlive the service."""

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from geo4d.errors import OutputError, OutputInUse
from geo4d.formats.files import output_errors, write_json
from geo4d.formats.locks import FileLock
from geo4d.results.manifest import read_json
from geo4d.service.jobs import ENDED, MOST_STARTS, RECORD, SOURCE, Job, State

log = logging.getLogger(__name__)

JOBS, INCOMING, LOCK, MARK = "jobs", "incoming", "lock", "geo4d-service.json"
"""In the folder of a service."""

_LAYOUT = 1


class JobStore:
    """Jobs by their id; may be used from several threads. Use as a context manager: it holds the folder's lock.

    Args:
        folder: of the service; made if it is not there.
        clock: seconds since 1970.
    Raises:
        OutputInUse: another service works on the folder.
        OutputError: it is not a folder of a service, or cannot be written.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = folder, clock
        self._jobs: dict[str, Job] = {}
        self._mutex = threading.RLock()
        self._lock: FileLock | None = None

    def __enter__(self) -> "JobStore":
        with output_errors(self.folder):
            self._claim()
            try:
                shutil.rmtree(self.folder / INCOMING, ignore_errors=True)
                for name in (JOBS, INCOMING):
                    (self.folder / name).mkdir(exist_ok=True)
                self._read()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = self.folder / MARK
        if not mark.exists() and any(self.folder.iterdir()):
            raise OutputError(
                f"expected a new folder or that of a service at {self.folder}, found other files; choose another --folder"
            )
        if not mark.exists():
            write_json(mark, {"layout": _LAYOUT})
        elif read_json(mark).get("layout") != _LAYOUT:
            raise OutputError(f"{self.folder} was made by another version of geo4d; choose another --folder")
        self._lock = FileLock.take(self.folder / LOCK)
        if self._lock is None:
            raise OutputInUse(f"another service works on {self.folder}; stop it or choose another --folder")
        self._lock.write(str(os.getpid()))

    def _read(self) -> None:
        """Take up what an earlier service has left: what ran then waits again, and goes on where it was."""
        for folder in sorted((self.folder / JOBS).iterdir()):
            if not (folder / RECORD).is_file():  # killed while it was deleted
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                job = Job.from_json(read_json(folder / RECORD))
            except (OutputError, ValueError) as error:
                log.warning("%s is left alone: %s", folder, error)
                continue
            if job.state == "running":
                job = replace(job, state="queued", stage="", done=0, total=0)
                if job.starts >= MOST_STARTS:
                    reason = f"the service ended {job.starts} times while this job ran; it is given up"
                    job = replace(job, state="failed", ended_s=self.clock(), exit_code=70, reason=reason)
                write_json(folder / RECORD, job.to_json())
            self._jobs[job.id] = job

    # reading --------------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Job | None:
        """A job as it is now; None if there is none of that id."""
        return self._jobs.get(id)

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        with self._mutex:
            return sorted(self._jobs.values(), key=lambda job: (-job.created_s, job.id))

    def waiting(self) -> list[Job]:
        """Jobs that wait, the oldest first."""
        return [job for job in reversed(self.all()) if job.state == "queued"]

    def place(self, id: str) -> Path:
        """Folder of a job."""
        return self.folder / JOBS / id

    # writing --------------------------------------------------------------------------------------------------------

    def new_place(self) -> Path:
        """A folder for a clip that is coming in; it becomes that of a job, or is removed."""
        place = self.folder / INCOMING / secrets.token_hex(16)
        (place / SOURCE).mkdir(parents=True)
        return place

    def add(self, place: Path, name: str, num_bytes: int, options: dict[str, Any]) -> Job:
        """A new job of what came in at ``place``; there completely, or not at all."""
        job = Job(place.name, name, num_bytes, options, created_s=self.clock())
        write_json(place / RECORD, job.to_json())
        place.replace(self.place(job.id))
        with self._mutex:
            self._jobs[job.id] = job
        return job

    def change(
        self, id: str, *, only: Sequence[State] = get_args(State), keep: bool = True, **fields: Any
    ) -> Job | None:
        """Change fields of a job; None if it has been deleted meanwhile, or is in another state.

        Args:
            only: states in which it is changed.
            keep: also on disk; not for progress, which a restart begins anew.
        """
        with self._mutex:
            if id not in self._jobs or self._jobs[id].state not in only:
                return None
            job = self._jobs[id] = replace(self._jobs[id], **fields)
            if keep:
                try:
                    write_json(self.place(id) / RECORD, job.to_json())
                except OSError as error:  # full, say: the job itself must not end by that
                    log.warning("the record of job %s is not written: %s", id, error)
            return job

    def clear(self, id: str) -> None:
        """Remove everything of a job but its record."""
        for entry in self.place(id).glob("*"):
            if entry.name != RECORD:
                _remove(entry)

    def delete(self, id: str) -> bool:
        """Forget a job and remove its folder; False if it is not there."""
        with self._mutex:
            if self._jobs.pop(id, None) is None:
                return False
        (self.place(id) / RECORD).unlink(
            missing_ok=True
        )  # first: without it a later service removes the rest
        _remove(self.place(id))
        return True

    def expire(self, keep_s: float) -> list[str]:
        """Delete jobs that ended ``keep_s`` seconds ago or earlier; their ids."""
        end = self.clock() - keep_s
        old = [job.id for job in self.all() if job.state in ENDED and (job.ended_s or 0) <= end]
        return [id for id in old if self.delete(id)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
