import dataclasses
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from geo4d.export.formats import FORMATS
from geo4d.service import exports as module
from geo4d.service.child import Setup
from geo4d.service.crew import Crew
from geo4d.service.exports import Exports, describe_exports, export_names
from geo4d.service.jobs import Job
from geo4d.service.refusals import Refusal
from geo4d.service.store import JobStore


@pytest.fixture
def exports(tmp_path):
    """Exports whose processes are never started: what is begun waits."""
    crew = Crew([Setup(None, 1, {})], eager=False)
    store = JobStore(tmp_path)
    store.place(JOB.id).mkdir(parents=True)
    return SimpleNamespace(all=Exports(store, crew, 60.0), crew=crew, folder=store.place(JOB.id))


JOB = Job("0" * 32, "my clip.mp4", 1, {}, created_s=0.0, state="done")


def test_every_format_is_described() -> None:
    assert [row["name"] for row in describe_exports()] == export_names()
    assert set(FORMATS) < set(export_names())
    assert all(row["holds"] for row in describe_exports())


def test_one_that_is_being_written_is_not_begun_twice(exports) -> None:
    first = exports.all.start(JOB, "ply", {"scale": 2.0})
    assert exports.all.start(JOB, "ply", {"scale": 2.0}) is first
    other = exports.all.start(JOB, "ply", {"scale": 3.0})
    assert other is not first
    assert exports.crew.tickets.qsize() == 2
    assert first.task.stem == "my clip"
    assert first.task.target.parent == exports.folder / "exports"
    assert isinstance(first.outcome, Future)
    first.outcome.set_result({})
    assert exports.all.start(JOB, "ply", {"scale": 2.0}) is not first


def test_a_file_is_found_by_its_options(exports) -> None:
    task = exports.all.start(JOB, "ply", {"scale": 2.0}).task
    assert exports.all.find(JOB, "ply", {"scale": 2.0}) is None
    (task.target.parent / f".{task.target.name}.x.part").touch()
    assert exports.all.find(JOB, "ply", {"scale": 2.0}) is None
    file = task.target.with_name(task.target.name + ".ply")
    file.touch()
    assert exports.all.find(JOB, "ply", {"scale": 2.0}) == file
    assert exports.all.find(JOB, "ply", {}) is None


def test_what_is_not_begun(exports, monkeypatch) -> None:
    with pytest.raises(Refusal, match="expected one of result") as caught:
        exports.all.start(JOB, "../x", {})
    assert caught.value.status == 404
    with pytest.raises(Refusal, match="it is running") as caught:
        exports.all.start(dataclasses.replace(JOB, state="running"), "ply", {})
    assert caught.value.status == 409
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    ticket = exports.all.start(JOB, "ply", {})
    with pytest.raises(Refusal) as caught:
        exports.all.start(JOB, "usd", {})
    assert (caught.value.status, caught.value.retry_s) == (429, 5)
    assert exports.all.cancel(JOB.id) == [ticket]
    assert ticket.is_cancelled
    assert exports.all.cancel("1" * 32) == []
