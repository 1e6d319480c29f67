"""What an engine is."""

from geo4d.batch.engine import STALLED, Engine, Event, stalled
from geo4d.batch.jobs import CLIPS_JOB
from geo4d.batch.local import LocalEngine
from geo4d.batch.task import Task


def test_processes_of_this_machine_are_an_engine() -> None:
    assert isinstance(LocalEngine(1, CLIPS_JOB, {}), Engine)


def test_an_event_without_words_says_nothing() -> None:
    event = Event("ended", 1, Task("a", "/a.mp4", "/out/a"))
    assert (event.exit_code, event.reason, event.note) == (0, "", None)


def test_a_worker_that_stood_still_is_told_with_the_limit_and_the_stage() -> None:
    assert stalled(90, "align (1 of 2)") == (
        STALLED,
        "it made no progress for 90 s during align (1 of 2) and was ended",
    )
    assert "before its first stage" in stalled(0.5, "")[1]
