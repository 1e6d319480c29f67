import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.errors import OutputError
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import load_model
from geo4d.training.data import ReplayPlan
from geo4d.training.loop import LoopConfig, MovingAverage, train
from geo4d.training.tiny import DiffusionConfig, StreamedBatches, TinyDiffusion, WindowSampling, fit_codec

LOOP = LoopConfig(num_steps=6, batch=4, warmup=2, precision="no", log_every=1, evaluate_every=0, save_every=3)


def task(source) -> TinyDiffusion:
    torch.manual_seed(3)
    model = TinyModel(smallest_preset())
    fit_codec(model.codec, source, 8)
    return TinyDiffusion(model, DiffusionConfig(seed=1))


def batches(source, batch: int = 4) -> StreamedBatches:
    return StreamedBatches(source, ReplayPlan(0, 8, 2), WindowSampling(2, (1, 2)), batch)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_an_interrupted_run_goes_on_exactly(source, tmp_path) -> None:
    train(task(source), batches(source), LOOP, tmp_path / "whole", device="cpu")
    part = replace(LOOP, num_steps=3, decay=0.0)
    # The rate must not depend on where the run is cut, so both parts share a schedule without decay.
    whole = replace(LOOP, decay=0.0)
    train(task(source), batches(source), whole, tmp_path / "flat", device="cpu")
    train(task(source), batches(source), part, tmp_path / "cut", device="cpu")
    progress = train(task(source), batches(source), whole, tmp_path / "cut", resume=True, device="cpu")
    assert progress.step == 6
    assert losses(tmp_path / "cut") == losses(tmp_path / "flat")
    for name, value in load_model(tmp_path / "flat/weights/model.safetensors").state_dict().items():
        assert torch.equal(
            load_model(tmp_path / "cut/weights/model.safetensors").state_dict()[name], value
        ), name
    assert len(losses(tmp_path / "whole")) == 6
    assert list((tmp_path / "whole").glob("events.*"))


def test_a_run_is_not_overwritten(source, tmp_path) -> None:
    train(task(source), batches(source), replace(LOOP, num_steps=1), tmp_path, device="cpu")
    with pytest.raises(OutputError, match="already holds a run"):
        train(task(source), batches(source), LOOP, tmp_path, device="cpu")


def test_micro_batches_give_the_gradient_of_the_whole_batch(source) -> None:
    """Equal up to what differs on purpose: the share of pure-noise samples is counted per micro-batch."""
    ours = task(source)
    ours.config = replace(ours.config, terminal_share=1.0)
    batch = next(batches(source)(0, 0, 1))
    ours(batch)[0].backward()
    whole = [p.grad.clone() for p in ours.trained().values() if p.grad is not None]
    ours.zero_grad()
    for piece in batch.split(2):
        (ours(piece)[0] / 2).backward()
    parts = [p.grad for p in ours.trained().values() if p.grad is not None]
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_a_batch_must_divide(source, tmp_path) -> None:
    with pytest.raises(ValueError, match="divides over 1 processes with 3 micro-batches"):
        train(task(source), batches(source), replace(LOOP, accumulate=3), tmp_path, device="cpu")


def test_the_rate_rises_stays_and_falls() -> None:
    loop = LoopConfig(num_steps=100, batch=1, warmup=10, decay=0.2, learning_rate=1.0, final_rate=0.1)
    assert loop.rate(0) == pytest.approx(0.1)
    assert loop.rate(50) == 1.0
    assert loop.rate(90) == pytest.approx(0.55)
    assert loop.rate(100) == pytest.approx(0.1)


def test_the_moving_average_follows_and_swaps_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    average = MovingAverage({"w": weight}, 0.9)
    for _ in range(200):
        weight.data.fill_(1.0)
        average.update({"w": weight})
    assert 0.99 < float(average.values["w"][0]) <= 1.0
    weight.data.fill_(5.0)
    kept = average.values["w"].clone()
    average.swap({"w": weight})
    assert torch.equal(weight.data, kept)
    average.swap({"w": weight})
    assert torch.equal(weight.data, torch.full((3,), 5.0))
    assert torch.equal(average.values["w"], kept)


@pytest.mark.slow
def test_two_processes_repeat_one_with_the_double_batch(tmp_path) -> None:
    """accelerate's own launcher, two CPU processes over gloo, against one process; same global batch."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, sys
            from dataclasses import replace
            from pathlib import Path
            path = {str(Path(__file__).with_name("conftest.py"))!r}
            spec = importlib.util.spec_from_file_location("pieces", path)
            pieces = importlib.util.module_from_spec(spec)
            sys.modules["pieces"] = pieces
            spec.loader.exec_module(pieces)
            spec = importlib.util.spec_from_file_location("loop_test", {str(Path(__file__))!r})
            loop_test = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loop_test)
            source = pieces.PlaneSource()
            ours = loop_test.task(source)
            ours.config = replace(ours.config, terminal_share=1.0)
            loop_test.train(ours, loop_test.batches(source), loop_test.LOOP, Path(sys.argv[1]), device="cpu")
            """
        )
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    for command, folder in ((launch, "two"), ([sys.executable], "one")):
        done = subprocess.run(
            [*command, str(script), str(tmp_path / folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
    one = load_model(tmp_path / "one/weights/model.safetensors").state_dict()
    two = load_model(tmp_path / "two/weights/model.safetensors").state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-2, atol=2e-3)
