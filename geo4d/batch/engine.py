"""What runs clips, or windows of one: workers that hold a model, wherever they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

STALLED = 124
"""Exit code of a worker that was ended because it made no progress, as the command ``timeout`` has it."""


@runtime_checkable
class Named(Protocol):
    """What a worker is asked to do."""

    @property
    def name(self) -> str:
        """Of a clip, or of a stretch of windows."""
        ...


@dataclass(frozen=True)
class Job:
    """What workers do: functions of modules, since processes get them by name.

    Attributes:
        load: keywords -> what a worker holds for all of its tasks; its ``identity`` (JSON values) is what decides results
            beside the task.
        run: (what is held, task, progress) -> what is noted about the task.
    """

    load: Callable[[Mapping[str, Any]], Any]
    run: Callable[[Any, Any, Callable[[str, int, int], None]], dict[str, Any]]


@dataclass(frozen=True)
class Event:
    """Something that happened to a worker.

    Attributes:
        kind: ``ready``, ``ended`` (a task) or ``died``.
        worker: its number.
        task: what it had.
        note: of ``ended``: as the job's ``run`` returns it. Of ``ready``: the identity.
        exit_code: of ``died``; ``STALLED`` where it was ended because it made no progress.
        reason: of ``died``: how, and in what stage.
    """

    kind: str
    worker: int
    task: Any = None
    note: Mapping[str, Any] | None = None
    exit_code: int = 0
    reason: str = ""


@runtime_checkable
class Engine(Protocol):
    """Workers by number; a coordinator gives each one task at a time. A context manager; leaving it ends them."""

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *error: object) -> None: ...

    def stop(self) -> None:
        """End all workers; finished windows stay."""
        ...

    def start(self, number: int) -> None:
        """Start a worker."""
        ...

    def idle(self) -> list[int]:
        """Workers that have a model and no task."""
        ...

    def submit(self, number: int, task: Named) -> None:
        """Give an idle worker a task."""
        ...

    def kill(self, name: str) -> None:
        """End the worker that has a task of this name; ``died`` follows."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened; empty after ``timeout_s`` without anything. A worker that died is started anew.

        Raises:
            BatchError: the model cannot be loaded.
            ResourceError: workers die while they start.
        """
        ...


def stalled(limit_s: float, stage: str) -> tuple[int, str]:
    """Exit code and reason of a worker that was ended because it stood still."""
    during = f" during {stage}" if stage else " before its first stage"
    return STALLED, f"it made no progress for {limit_s:g} s{during} and was ended"
