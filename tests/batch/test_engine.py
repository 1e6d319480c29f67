"""What an engine is."""

from geo4d.batch.engine import Engine, Event
from geo4d.batch.local import LocalEngine
from geo4d.batch.one import Task


def test_processes_of_this_machine_are_an_engine() -> None:
    assert isinstance(LocalEngine(1, {}), Engine)


def test_an_event_without_words_says_nothing() -> None:
    event = Event("ended", 1, Task("a", "/a.mp4", "/out/a"))
    assert (event.exit_code, event.reason, event.note) == (0, "", None)
