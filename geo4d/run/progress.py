"""Progress of a long run on the terminal or in a notebook: one bar per stage."""

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command says what it reads before torch is loaded
    from geo4d.run.predict import Progress


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


class NotebookBars:
    """A bar per stage below the cell of a notebook.

    Use as a context manager; an instance is a callback as ``StageBars``.
    """

    def __init__(self) -> None:
        self._stages: dict[str, tuple[int, int]] = {}
        self._handle: Any = None
        self._shown_s = -1.0

    def __enter__(self) -> "NotebookBars":
        from IPython.display import HTML, display

        self._handle = display(HTML(self._page()), display_id=True)
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._stages[stage] = (done, total)
        now = time.monotonic()
        if done >= total or now - self._shown_s > 0.2:  # a page that is redrawn for every step is slow
            self._shown_s = now
            self._show()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(self._page()))

    def _page(self) -> str:
        rows = [
            f"<tr><td>{html.escape(stage)}</td><td><progress value='{done}' max='{max(total, 1)}'></progress></td>"
            f"<td>{done} of {total}</td></tr>"
            for stage, (done, total) in self._stages.items()
        ]
        return f"<table>{''.join(rows)}</table>"


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, whose page shows more than text."""
    shell = sys.modules.get("IPython")
    kernel = None if shell is None else shell.get_ipython()
    return kernel is not None and hasattr(kernel, "kernel")


@contextmanager
def stage_progress(on_progress: "Progress | None", *, show: bool) -> "Iterator[Progress]":
    """One callback for all who want to know: the caller's, and bars in the terminal or the notebook if ``show``."""
    own = on_progress or (lambda stage, done, total: None)
    if not show:
        yield own
        return
    with NotebookBars() if in_notebook() else StageBars() as bars:

        def both(stage: str, done: int, total: int) -> None:
            own(stage, done, total)
            bars(stage, done, total)

        yield both
