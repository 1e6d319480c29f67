"""Exports of finished jobs: written once, when someone asks, one file each, beside the result."""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.export.formats import FORMATS, format_names
from geo4d.export.plugins import plugin_points
from geo4d.service.crew import Crew, Ticket
from geo4d.service.jobs import EXPORTS, Job, source_of
from geo4d.service.refusals import Refusal
from geo4d.service.store import JobStore
from geo4d.service.tasks import EXTRAS, Export

MOST_WAITING = 32
"""Exports that may wait."""


def export_names() -> list[str]:
    """Everything that a finished job can be downloaded as."""
    return [*EXTRAS, *format_names()]


def describe_exports() -> list[dict[str, Any]]:
    """For the API: name, what it holds, whether it comes as a zip."""
    rows = [
        {"name": name, "holds": holds, "suffixes": [".zip"] if name == "result" else [".html"]}
        for name, holds in EXTRAS.items()
    ]
    rows += [
        {"name": name, "holds": one.holds, "suffixes": list(one.suffixes[:1]) or [".zip"]}
        for name, one in FORMATS.items()
    ]
    return rows + [
        {"name": name, "holds": "a format of an installed package", "suffixes": []}
        for name in plugin_points(FORMATS)
    ]


class Exports:
    """Exports that are there and that are being written; may be used from several threads.

    Args:
        crew: processes that write them.
        limit_s: seconds that one may take.
    """

    def __init__(self, store: JobStore, crew: Crew, limit_s: float) -> None:
        self._store, self._crew, self._limit_s = store, crew, limit_s
        self._tickets: dict[tuple[str, str], Ticket] = {}
        self._mutex = threading.Lock()

    def find(self, job: Job, name: str, options: Mapping[str, Any]) -> Path | None:
        """The file of an export, if it is there."""
        target = self._target(job, name, options)
        return next(iter(sorted(target.parent.glob(f"{target.name}.*"))), None)

    def start(self, job: Job, name: str, options: Mapping[str, Any]) -> Ticket:
        """Let it be written; the ticket of one that is being written already is the same.

        Raises:
            Refusal: the job has no result, there is no such format, or too many wait.
        """
        if name not in export_names():
            raise Refusal(404, f"expected one of {', '.join(export_names())} as the format, got {name!r}")
        if job.state != "done":
            raise Refusal(409, f"the job has no result: it is {job.state}")
        target = self._target(job, name, options)
        with self._mutex:
            key = (job.id, target.name)
            if key in self._tickets:
                return self._tickets[key]
            if len(self._tickets) >= MOST_WAITING:
                raise Refusal(429, f"{MOST_WAITING} exports wait already", retry_s=5)
            target.parent.mkdir(exist_ok=True)
            folder = self._store.place(job.id)
            stem = Path(job.name).stem or "clip"
            task = Export(folder, source_of(folder, job), name, stem, target, dict(options))
            ticket = self._tickets[key] = Ticket(task, self._limit_s)
        ticket.outcome.add_done_callback(lambda outcome: self._forget(key))
        return self._crew.submit(ticket)

    def _forget(self, key: tuple[str, str]) -> None:
        with self._mutex:
            self._tickets.pop(key, None)

    def cancel(self, id: str) -> list[Ticket]:
        """End all that are being written for a job."""
        with self._mutex:
            tickets = [ticket for (job, _), ticket in self._tickets.items() if job == id]
        for ticket in tickets:
            self._crew.cancel(ticket)
        return tickets

    def _target(self, job: Job, name: str, options: Mapping[str, Any]) -> Path:
        mark = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
        return self._store.place(job.id) / EXPORTS / f"{name}-{mark}"
