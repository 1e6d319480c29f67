"""Sequences over workers: the same rows as one after the other, whoever dies, and what is finished stays."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.batch.settings import WorkerSettings
from geo4d.errors import BatchError, InputError, ResourceError
from geo4d.evaluation import workers
from geo4d.evaluation.run import evaluate
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.formats.cameras import save_tum
from geo4d.formats.images import save_image
from geo4d.models import base
from tests.support import batch_stub as batches
from tests.support.inline_engine import InlineEngine
from tests.support.truth import BoxWorld

NAMES = ("a", "b", "c")
RUN = {"tries": 0, "motion": False}
STUB = ("--model", "stub")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three stretches of the box world in the simple layout, 4, 5 and 6 frames of 160x96."""
    root, world = tmp_path_factory.mktemp("boxes"), BoxWorld((96, 160))
    fx, fy, cx, cy = (float(world.intrinsics()[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    for number, name in enumerate(NAMES):
        frames = range(20 * number, 20 * number + 4 + number)
        (root / name / "depth").mkdir(parents=True)
        for i, t in enumerate(frames):
            save_image(root / name / "rgb" / f"{i:06d}.png", world.rgb(t).numpy())
            np.savez(root / name / "depth" / f"{i:06d}.npz", depth=world.depth(t).numpy())
        (root / name / "intrinsics.txt").write_text(f"{fx} {fy} {cx} {cy}")
        (root / name / "clip.json").write_text('{"fps": 10}')
        save_tum(
            root / name / "poses.txt",
            np.arange(len(frames)) / 10,
            np.stack([world.c2w(t).numpy() for t in frames]),
        )
    return root


@pytest.fixture
def stub(monkeypatch) -> None:
    monkeypatch.setitem(base.PREDICTORS, "stub", batches.stub.__name__)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(root) -> str:
    """The result of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.PREDICTORS, "stub", batches.stub.__name__)
        return result(root)


@pytest.fixture
def inline(monkeypatch):
    made = []

    def use(deaths=()):
        monkeypatch.setattr(
            workers,
            "make_engine",
            lambda how, job, settings: made.append(InlineEngine(job, settings, deaths)) or made[-1],
        )
        return made

    return use


def without_seconds(value):
    """A result without what it took."""
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if not k.endswith("_seconds")}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def result(root: Path, how: WorkerSettings = workers.ALONE, work: Path | None = None, **changes) -> str:
    settings = EvaluationSettings(model="stub", model_settings=RUN, **changes)
    found = evaluate("folder", root, settings, how=how, work=work)
    assert all(row["predicting_seconds"] > 0 for row in found["sequences"])
    return json.dumps(without_seconds(found), default=str)


def test_any_order_with_deaths_gives_the_same_result(root, stub, inline, alone) -> None:
    made = inline(deaths=[1, 99, 1])
    assert json.loads(alone)["mean"]["coverage"] == 1
    assert json.loads(alone)["sequences"][0]["abs_rel"] < 0.05  # where the stub's camera begins
    assert result(root, WorkerSettings(workers=3)) == alone
    given = [name for _, name in made[0].given]
    assert sorted(set(given)) == list(NAMES)
    assert len(given) == 5  # two deaths
    assert given != sorted(given)


def test_what_is_finished_is_not_given_out_again_and_what_failed_is_named(
    root, stub, inline, alone, tmp_path, monkeypatch
) -> None:
    work, real = tmp_path / "parts", workers.run_sequence
    inline()

    def fail(plan, settings, name, predictor):
        if name == "a":
            raise InputError("no such luck")
        return real(plan, settings, name, predictor)

    monkeypatch.setattr(workers, "run_sequence", fail)
    with pytest.raises(BatchError, match="a: no such luck") as error:
        result(root, WorkerSettings(workers=2), work)
    assert error.value.exit_code == InputError.exit_code
    monkeypatch.undo()
    made = inline()
    monkeypatch.setitem(base.PREDICTORS, "stub", batches.stub.__name__)
    kept = {json.loads(path.read_text())["name"] for path in work.iterdir()}
    shared = result(root, WorkerSettings(workers=2), work)
    assert {name for _, name in made[-1].given} == set(NAMES) - kept
    assert kept
    assert shared == alone
    made.clear()
    assert result(root, WorkerSettings(workers=2), work) == alone
    assert made == []  # nothing was left: nobody was started


def test_a_sequence_that_kills_every_worker_ends_the_command_and_is_named(root, stub, inline) -> None:
    inline(deaths=[1] * 9)
    with pytest.raises(ResourceError, match=r"[abc] ended 3 workers: killed; finished sequences stay"):
        result(root, WorkerSettings(workers=1, worker_cpus=1))


def test_workers_with_another_model_are_refused(root, stub, inline, monkeypatch) -> None:
    inline()
    shapes = iter(["one", "two"])
    monkeypatch.setattr(workers, "describe_model", lambda predictor: {"weights_sha256": next(shapes)})
    with pytest.raises(BatchError, match="other results than the first one"):
        result(root, WorkerSettings(workers=2))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_the_command_over_two_workers_writes_the_file_of_one(root, tmp_path, monkeypatch, engine) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "tests.support.ray_stub.with_stub")
    trace = tmp_path / "trace"
    trace.mkdir()
    found = []
    for words in ((), ("--workers", 2, "--engine", engine, "--worker-cpus", 1)):
        file = tmp_path / f"{len(words)}.json"
        here = os.path.relpath(root, batches.ROOT)  # workers of Ray stand elsewhere
        code, _, error = batches.run(
            "evaluate", "folder", "--root", here, *STUB, "--json", file, *words,
            "--model-option", f"trace={trace}", "--model-option", "sleep=0.5",
        )  # fmt: skip
        assert code == 0, error
        found.append(without_seconds(json.loads(file.read_text())))
        assert not file.with_name(f"{file.name}.parts").exists()
    assert found[0] == found[1]
    assert len(list(trace.iterdir())) == 3  # one process, then two
