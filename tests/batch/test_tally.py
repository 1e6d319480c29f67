"""Counts, lines and the exit code."""

import pytest

from geo4d.batch.clips import Clip
from geo4d.batch.tally import Tally
from geo4d.errors import BatchError

CLIP = Clip("name", "path", "/name.mp4")


def make(*codes: int, total: int | None = None) -> tuple[Tally, list[str]]:
    lines: list[str] = []
    tally = Tally(total or len(codes), lines.append)
    tally.begin()
    for code in codes:
        note = {"exit_code": code, "reason": "why", "frames": 4, "verdict": "usable", "seconds": 1.0}
        tally.end(CLIP, note)
    return tally, lines


def exit_code(tally: Tally, keep_going: bool = False) -> int:
    try:
        tally.require(keep_going=keep_going, where="table")
    except BatchError as error:
        return error.exit_code
    return 0


@pytest.mark.parametrize(
    ("codes", "code"), [((0, 0), 0), ((3, 3), 3), ((0, 3), 11), ((3, 4), 11), ((137, 137), 11), ((9, 9), 9)]
)
def test_exit_code_by_outcome(codes: tuple[int, ...], code: int) -> None:
    assert exit_code(make(*codes)[0]) == code


def test_doubtful_results_count_as_done_on_demand() -> None:
    assert exit_code(make(0, 9)[0], keep_going=True) == 0
    assert exit_code(make(3, 9)[0], keep_going=True) == 11


def test_skipped_clips_count_with_the_code_that_they_had() -> None:
    tally, _ = make(0, total=3)
    tally.skip({"exit_code": 0})
    tally.skip({"exit_code": 3})
    assert tally.ended == 3
    assert tally.failed == 1
    assert exit_code(tally) == 11
    assert (
        "2 of 3 clips are done (2 of all skipped as unchanged); 1 ended with exit code 3" in tally.lines()[0]
    )


def test_lines_tell_how_far_it_is_and_how_long_it_will_take(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.batch.tally.time.monotonic", lambda: 0.0)
    lines: list[str] = []
    tally = Tally(4, lines.append)
    tally.begin()
    monkeypatch.setattr("geo4d.batch.tally.time.monotonic", lambda: 30.0)
    tally.end(CLIP, {"exit_code": 0, "frames": 4, "verdict": "usable", "seconds": 30.0})
    tally.elsewhere(CLIP, {"exit_code": 3, "reason": "no video"})
    tally.again(CLIP, "killed", 1, 3)
    assert lines[1] == "[1/4] name: 4 frames, usable, 30.0 s; left about 2 min"
    assert lines[2] == "[2/4] name: elsewhere: exit code 3: no video; left about 30 s"
    assert "try 1 of 3 of name failed: killed" in lines[3]
    assert "1 tries were repeated" in tally.lines()[0]


def test_what_is_left_to_others_is_said() -> None:
    tally, _ = make(0, total=2)
    tally.left(1)
    assert "1 are left to other coordinators" in tally.lines()[0]
