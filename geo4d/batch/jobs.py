"""The jobs of a batch, as a coordinator names them: what does them, and torch with it, is loaded by the workers alone."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from geo4d.batch.engine import Job
from geo4d.batch.task import Task

if TYPE_CHECKING:
    from geo4d.batch.one import Loaded


def _load(settings: Mapping[str, Any]) -> "Loaded":
    from geo4d.batch.one import load

    return load(settings)


def _run(loaded: "Loaded", task: Task, on_progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    from geo4d.batch.one import run_clip

    return run_clip(loaded, task, on_progress)


CLIPS_JOB = Job(_load, _run)
"""What the workers of a batch do."""
