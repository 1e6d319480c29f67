"""What processes of the service are asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geo4d.config import RunConfig
from geo4d.errors import Geo4DError

EXTRAS = {
    "result": "the whole result with the clip, for geo4d on another machine",
    "report": "one page about the result",
}
"""What can be downloaded beside the formats of ``geo4d.export``: a zip and an HTML page."""


class TooManyFrames(Geo4DError):
    """The clip is longer than the service allows."""

    exit_code = 3


@dataclass(frozen=True)
class Check:
    """Open a clip as the run will.

    Attributes:
        source: the clip.
        config: the settings of the run.
        max_frames: more are refused.
    """

    source: Path
    config: RunConfig
    max_frames: int


@dataclass(frozen=True)
class Work:
    """Reconstruct the clip of a job, or go on with it.

    Attributes:
        folder: of the job.
        source: the clip in it.
        options: settings in place of those of the service.
    """

    folder: Path
    source: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """Write an export as one file.

    Attributes:
        folder: of the job.
        source: the clip in it.
        name: of the format, or of ``EXTRAS``.
        stem: name of the files inside.
        target: the file, without its suffix, which the note states.
        options: fields of ``geo4d.export.ExportConfig``.
    """

    folder: Path
    source: Path
    name: str
    stem: str
    target: Path
    options: Mapping[str, Any] = field(default_factory=dict)
