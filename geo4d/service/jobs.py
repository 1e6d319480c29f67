"""A job: what was asked, how far it is, what came out; one JSON file in its folder."""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")

RECORD, SOURCE, RESULT, PREVIEW, EXPORTS = "job.json", "source", "result", "preview", "exports"
"""In the folder of a job."""

MOST_STARTS = 3
"""Starts of the service that a job may be running at without an end: it may be what ends the service."""


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        id: its name in addresses and on disk, which nobody can guess.
        name: of the clip, as it is shown and as its file is called.
        num_bytes: of the clip.
        options: settings of this run, beside those of the service.
        created_s, started_s, ended_s: seconds since 1970.
        starts: how often the work was begun.
        stage, done, total: what is being worked on, and how much of it is done.
        plan: what the run does, as ``work.describe_plan`` gives it.
        summary: what the result is like, as ``work.summarise`` gives it.
        exit_code: as ``geo4d reconstruct`` would have ended; None before the end, and of a cancelled job.
        reason: why it failed or is doubtful.
        warnings: of the run.
    """

    id: str
    name: str
    num_bytes: int
    options: Mapping[str, Any]
    created_s: float
    state: State = "queued"
    started_s: float | None = None
    ended_s: float | None = None
    starts: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    plan: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    exit_code: int | None = None
    reason: str = ""
    warnings: tuple[str, ...] = field(default=())

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    def to_json(self) -> dict[str, Any]:
        """For its file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Job":
        """
        Raises:
            ValueError: no record of a job.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {name: value for name, value in values.items() if name in known}
        fault = next((name for name, fits in _FITS.items() if not fits(fields.get(name))), None)
        if fault is not None:
            raise ValueError(f"expected the record of a job, got {fault} {fields.get(fault)!r:.80}")
        return cls(**{**fields, "warnings": tuple(fields.get("warnings", ()))})


def file_name(given: str) -> str:
    """A name that a clip can have on any disk and on a page, from whatever a client called it.

    Folders, what has a meaning to a shell or to a page, and leading dots are left out; at most 80 bytes.
    """
    name = re.split(r"[/\\]", given)[-1]
    name = unicodedata.normalize("NFC", name)
    name = "".join(letter if letter.isalnum() or letter in "._- ()" else "_" for letter in name)
    stem, suffix = os.path.splitext(name.strip(" ").lstrip(". "))
    suffix = suffix if suffix.isascii() and len(suffix) <= 10 else ""
    while len((stem + suffix).encode()) > 80:
        stem = stem[:-1]
    return (stem.strip(" ") or "clip") + suffix.rstrip(" .")


def source_of(folder: Path, job: Job) -> Path:
    """The clip of a job in its folder."""
    return folder / SOURCE / job.name


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FITS: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None,
    "name": lambda value: isinstance(value, str) and file_name(value) == value,
    "num_bytes": lambda value: isinstance(value, int),
    "options": lambda value: isinstance(value, dict),
    "created_s": _is_time,
    "started_s": lambda value: value is None or _is_time(value),
    "ended_s": lambda value: value is None or _is_time(value),
    "state": lambda value: value in get_args(State),
    "starts": lambda value: isinstance(value, int),
    "warnings": lambda value: isinstance(value, list),
}
"""What the rest relies on in a record, that anything may have been done to."""
