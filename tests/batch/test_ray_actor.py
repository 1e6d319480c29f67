"""What an actor answers; no Ray is needed for that."""

import pickle

import pytest
import torch

from geo4d.batch.ray_actor import RayWorker, ray_version
from geo4d.errors import BatchError, CheckpointError
from geo4d.results.provenance import versions
from tests.support.toy_job import TOY_JOB, ToyTask

pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def worker(settings=None, **other) -> RayWorker:
    expected = {**versions(), "ray": ray_version(), **other}
    return RayWorker(expected, pickle.dumps((TOY_JOB, settings or {})), 1)


def test_a_task_is_done_and_its_progress_counted() -> None:
    ours = worker({"a": 1})
    kind, identity, about = ours.ready()
    assert kind == "ready"
    assert identity["settings"] == {"a": 1}
    assert about["process"] == identity["process"]
    assert ours.stage() == ("", 0, 0, 0)
    assert ours.run(ToyTask("a", "steps", 3), ())[1] == {"state": "done", "name": "a"}
    stage, _, total, count = ours.stage()
    assert (stage, total) == ("stepping", 3)
    ours.run(ToyTask("b", "steps", 1), ())
    assert ours.stage()[3] > count  # never falls, so that every progress is seen
    assert torch.get_num_threads() == 1


def test_other_versions_are_refused_before_anything_is_unpacked() -> None:
    ours = RayWorker({**versions(), "torch": "9.9"}, b"no pickle", 1)
    kind, code, reason = ours.ready()
    assert (kind, code) == ("refused", BatchError.exit_code)
    assert "9.9 here" in reason
    assert "numpy" not in reason
    assert worker(ray="0.1").ready()[0] == "refused"


def test_what_keeps_a_model_from_being_loaded_has_its_own_code() -> None:
    assert worker({"refuse": True}).ready() == ("refused", CheckpointError.exit_code, "no such weights")


def test_places_that_are_not_seen_here_are_told_before_the_task_begins(tmp_path) -> None:
    ours = worker()
    ours.ready()
    answer = ours.run(ToyTask("a", "answer"), (str(tmp_path), str(tmp_path / "far")))
    assert (answer[0], answer[2]) == ("unseen", str(tmp_path / "far"))
