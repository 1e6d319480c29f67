"""What runs the clips: workers that hold a model, wherever they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from geo4d.batch.one import Task


@dataclass(frozen=True)
class Event:
    """Something that happened to a worker.

    Attributes:
        kind: ``ready``, ``ended`` (a task) or ``died``.
        worker: its number.
        task: what it had.
        note: of ``ended``: as ``run_clip`` returns it. Of ``ready``: the identity.
        exit_code: of ``died``.
        reason: of ``died``: how, and in what stage.
    """

    kind: str
    worker: int
    task: Task | None = None
    note: Mapping[str, Any] | None = None
    exit_code: int = 0
    reason: str = ""


@runtime_checkable
class Engine(Protocol):
    """Workers by number; a coordinator gives each one task at a time."""

    def start(self, number: int) -> None:
        """Start a worker."""
        ...

    def idle(self) -> list[int]:
        """Workers that have a model and no task."""
        ...

    def submit(self, number: int, task: Task) -> None:
        """Give an idle worker a task."""
        ...

    def kill(self, name: str) -> None:
        """End the worker that has a clip of this name; ``died`` follows."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened; empty after ``timeout_s`` without anything. A worker that died is started anew.

        Raises:
            BatchError: the model cannot be loaded.
            ResourceError: workers die while they start.
        """
        ...
