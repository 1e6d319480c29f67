"""Progress of a long command on the terminal: one bar per stage, with the time it will still take."""

import sys
from types import TracebackType
from typing import Any


class StageBars:
    """A bar per stage on a terminal; elsewhere one line when a stage is done. Use as a context manager.

    An instance is the callback that ``reconstruct`` takes: (stage, done, total).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: dict[str, Any] = {}
        self._progress: Any = None
        self._said: set[str] = set()

    def __enter__(self) -> "StageBars":
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self

    def say(self, text: str) -> None:
        """A line of its own, above the bars."""
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """No more bars: what is printed from here on stays below them."""
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if self._progress is not None:
            if stage not in self._bars:
                self._bars[stage] = self._progress.add_task(stage, total=total)
            self._progress.update(self._bars[stage], completed=done, total=total)
        elif done >= total and stage not in self._said:
            self._said.add(stage)
            print(f"{stage}: {total} of {total}", file=sys.stderr)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
