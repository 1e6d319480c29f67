"""What a coordinator asks a worker for. The coordinator itself loads no network and no torch: it begins at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geo4d.batch.engine import Job

if TYPE_CHECKING:
    from geo4d.batch.one import Loaded


@dataclass(frozen=True)
class Task:
    """What a worker is asked to do.

    Attributes:
        name: of the clip.
        path: of the video or the folder of pictures.
        output: folder of the result.
        keep_going: a doubtful result is no failure.
        publish: address that gets the result in place of the disk; none if empty.
        owner: of the lock of that address: the batch, whose leases keep its own workers apart.
    """

    name: str
    path: str
    output: str
    keep_going: bool = False
    publish: str = ""
    owner: str = ""


def _load(settings: Mapping[str, Any]) -> "Loaded":
    from geo4d.batch.one import load

    return load(settings)


def _run(loaded: "Loaded", task: Task, on_progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    from geo4d.batch.one import run_clip

    return run_clip(loaded, task, on_progress)


CLIPS_JOB = Job(_load, _run)
"""What the workers of a batch do."""
