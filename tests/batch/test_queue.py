"""Tasks over workers that nobody else shares: who gets what, and deaths."""

from types import SimpleNamespace

import pytest

from geo4d.batch.engine import Job
from geo4d.batch.queue import TRIES, require_same, work_off
from geo4d.errors import BatchError, ResourceError
from tests.support.inline_engine import InlineEngine
from tests.support.toy_job import ToyTask


def engine(deaths=()) -> InlineEngine:
    def run(loaded, task, on_progress):
        on_progress("toy", 0, 1)
        return {"name": task.name}

    return InlineEngine(Job(lambda settings: SimpleNamespace(identity=dict(settings)), run), {"a": 1}, deaths)


def through(workers: InlineEngine, names: str, count: int, **rest):
    found: list[dict] = []
    ended = list(
        work_off(
            workers, [ToyTask(name) for name in names], count, on_ready=found.append, hint="rest", **rest
        )
    )
    assert all(task.name == note["name"] for task, note in ended)
    return [task.name for task, _ in ended], found


def test_every_task_ends_once_also_where_workers_die() -> None:
    workers = engine(deaths=[99, 1, 1])
    ended, identities = through(workers, "abcd", 9)
    assert sorted(ended) == list("abcd")
    assert len(workers.loaded) == 4  # never more than there are tasks
    assert identities == [{"a": 1}] * 6  # those that came for dead ones are asked, too
    assert len(workers.given) == 6


def test_the_next_task_is_chosen_by_what_a_worker_had_last() -> None:
    workers, asked = engine(), []

    def choose(free, last):
        asked.append(last)
        return max(free)

    ended, _ = through(workers, "abc", 1, choose=choose)
    assert ended == ["c", "b", "a"]
    assert asked == [None, 2, 1]


def test_a_task_that_kills_too_many_workers_is_named() -> None:
    with pytest.raises(ResourceError, match=f"a ended {TRIES} workers: killed; rest"):
        through(engine(deaths=[1] * TRIES), "a", 1)


def test_another_identity_is_told_apart() -> None:
    require_same({"device": "cpu"}, {"device": "cpu"}, "x")
    with pytest.raises(BatchError, match=r"other results than x .*device"):
        require_same({"device": "cpu"}, {"device": "cuda"}, "x")
