import sys

import pytest

from geo4d.apps.progress import StageBars


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
