import subprocess
import sys

import pytest

from geo4d.run.progress import StageBars, stage_progress


def test_a_line_for_each_stage_when_it_is_done(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with StageBars() as bars:
        for stage in ("find shots", "predict"):
            for done in range(4):
                bars(stage, done, 3)
        bars("predict", 3, 3)  # said once
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["find shots: 3 of 3", "predict: 3 of 3"]
    assert shown.out == ""


def test_quiet_says_nothing_even_on_a_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StageBars(quiet=True) as bars:
        bars("predict", 3, 3)
    assert capsys.readouterr().err == ""


def test_bars_on_a_terminal_know_stage_and_numbers(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StageBars() as bars:
        bars("predict", 1, 8)
        bars("predict", 8, 8)
        bars("align", 1, 2)
        tasks = {task.description: (task.completed, task.total) for task in bars._progress.tasks}
    assert tasks == {"predict": (8, 8), "align": (1, 2)}


def test_bars_are_put_away_when_something_fails(monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bars = StageBars()

    def fail() -> None:
        with bars:
            bars("predict", 1, 8)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert bars._progress.finished or not bars._progress.live.is_started


class Kernel:
    """What ``IPython`` is inside a notebook, as far as it is asked: a display whose content is replaced."""

    kernel = True

    def __init__(self) -> None:
        self.pages: list[str] = []

    def get_ipython(self) -> "Kernel":
        return self

    def display(self, page: str, *, display_id: bool) -> "Kernel":
        self.update(page)
        return self

    def update(self, page: str) -> None:
        self.pages.append(page)

    def HTML(self, page: str) -> str:
        return page


@pytest.fixture
def kernel(monkeypatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel)
    return kernel


def test_a_notebook_shows_bars_below_the_cell(kernel, capsys) -> None:
    seen = []
    with stage_progress(lambda *args: seen.append(args), show=True) as said:
        for done in range(9):
            said("a <stage>", done, 8)
        said("align", 1, 2)
    assert seen[-1] == ("align", 1, 2)
    assert "<stage>" not in kernel.pages[-1]
    assert "<progress value='8' max='8'></progress></td><td>8 of 8" in kernel.pages[-1]
    assert "1 of 2" in kernel.pages[-1]
    assert len(kernel.pages) < 9  # drawn now and then, not for each step
    assert capsys.readouterr().err == ""


def test_without_a_notebook_it_is_the_terminal_and_only_if_asked(capsys) -> None:
    with stage_progress(None, show=True) as said:
        said("align", 2, 2)
    assert capsys.readouterr().err == "align: 2 of 2\n"
    with stage_progress(None, show=False) as said:
        said("align", 2, 2)
    assert capsys.readouterr().err == ""


def test_bars_are_importable_without_torch() -> None:
    code = "import sys, geo4d.run.progress; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
