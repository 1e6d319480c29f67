"""DeepSpeed's ZeRO over processes that really are several, on a CPU, against one process."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from geo4d.errors import MissingExtraError
from geo4d.training.loop import Task, train
from geo4d.training.zero import load_engine, open_zero, settings
from tests.support.sharded import (
    LOOP,
    Numbers,
    Overflowing,
    Recomputed,
    Sometimes,
    Wave,
    held,
    launch,
    losses,
    start,
)

STAGES = pytest.mark.parametrize("way", ["zero2", "zero3"])


@pytest.fixture
def engine() -> None:
    pytest.importorskip("deepspeed")


def alone(folder: Path, task: Task, num_steps: int = 6, **changes) -> list[float]:
    train(task, Numbers(8), replace(LOOP, num_steps=num_steps, **changes), folder, device="cpu")
    return losses(folder)


def assert_same_weights(ours: Path, theirs: Path, rtol: float = 1e-3, atol: float = 1e-5) -> None:
    one, two = (load_file(run / "weights/w.safetensors") for run in (ours, theirs))
    assert one.keys() == two.keys()
    for name in two:
        torch.testing.assert_close(one[name], two[name], rtol=rtol, atol=atol)


@pytest.mark.slow
@STAGES
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_repeat_one(engine, tmp_path: Path, way: str, accumulate: int) -> None:
    said = launch(tmp_path / "two", 6, way, accumulate=accumulate)
    assert said.count("processes 2 step 6") == 2
    count = sum(p.numel() for p in Wave().parameters())
    # Shares are padded by a number at most, for each of eight parameters.
    assert held(said) == [count, count] if way == "zero2" else max(held(said)) <= count / 2 + 4
    one = alone(tmp_path / "one", Wave(), accumulate=accumulate)
    assert losses(tmp_path / "two") == pytest.approx(one, rel=1e-4)
    assert one[5] != pytest.approx(one[0], rel=0.1)
    assert_same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@STAGES
def test_a_stopped_run_goes_on_exactly_also_over_other_processes_and_with_the_other_stage(
    engine, tmp_path: Path, way: str
) -> None:
    launch(tmp_path / "whole", 6, way)
    launch(tmp_path / "cut", 3, way)
    assert sorted(path.name for path in (tmp_path / "cut/state").iterdir()) == [
        "average.safetensors", "exp_avg.safetensors", "exp_avg_sq.safetensors", "model.safetensors", "zero.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "cut/state/zero.json").read_text())["step"] == 3
    assert "step 6" in launch(tmp_path / "cut", 6, way)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same_weights(tmp_path / "cut", tmp_path / "whole", rtol=0, atol=0)
    launch(tmp_path / "other", 3, way)
    launch(tmp_path / "other", 6, "zero3" if way == "zero2" else "zero2", processes=4)
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    assert_same_weights(tmp_path / "other", tmp_path / "whole")
    # Moments that were lost would show in no loss so soon: after as many steps as those, they are the same.
    for key in ("exp_avg", "exp_avg_sq"):
        one, two = (load_file(tmp_path / run / f"state/{key}.safetensors") for run in ("other", "whole"))
        for name in two:
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@STAGES
def test_recomputed_activations_and_bf16(engine, tmp_path: Path, way: str) -> None:
    launch(tmp_path / "two", 4, way, task="Recomputed", precision="bf16")
    one = alone(tmp_path / "one", Recomputed(), num_steps=4, precision="bf16")
    assert losses(tmp_path / "two") == pytest.approx(one, rel=1e-2)
    plain = alone(tmp_path / "plain", Wave(), num_steps=4)
    assert one != pytest.approx(plain, rel=1e-4)  # bf16 is told apart, and was at work in both
    assert losses(tmp_path / "two") != pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
@STAGES
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_a_step_does_not_use_has_gradients_of_zero(
    engine, tmp_path: Path, way: str, accumulate: int
) -> None:
    launch(tmp_path / "two", 6, way, task="Sometimes", accumulate=accumulate, learning_rate=1e-2)
    one = alone(tmp_path / "one", Sometimes(touched=True), learning_rate=1e-2)
    assert losses(tmp_path / "two") == pytest.approx(one, rel=1e-4)
    assert_same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@STAGES
def test_an_infinite_gradient_skips_the_step_and_a_broken_loss_ends_the_run(
    engine, tmp_path: Path, way: str
) -> None:
    launch(tmp_path / "two", 6, way, task="Overflowing", precision="no")
    assert losses(tmp_path / "two") == pytest.approx(alone(tmp_path / "one", Overflowing()), rel=1e-4)
    assert_same_weights(tmp_path / "two", tmp_path / "one")
    rows = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    assert [row.get("skipped") for row in rows] == [None, None, 1.0, None, None, None]
    done = start(tmp_path / "broken", 6, way, task="Broken", save_every=1)
    assert done.returncode != 0
    assert re.search(r"the loss of step 2 is nan \(error\) on samples \[(16|20), ", done.stderr)
    assert json.loads((tmp_path / "broken/state/zero.json").read_text())["step"] == 2


def test_the_engine_is_an_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(MissingExtraError, match=r"'deepspeed'.*geo4d\[deepspeed\]"):
        load_engine(torch.device("cpu"))
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(MissingExtraError, match="deepspeed"):
        open_zero(2, Wave(), LOOP, tmp_path, accelerator)


@STAGES
def test_one_process_and_8_bits_are_refused(tmp_path: Path, way: str) -> None:
    with pytest.raises(ValueError, match=r"expected several processes .*torchrun"):
        alone(tmp_path, Wave(), parallel=way)
    with pytest.raises(ValueError, match=f"without --parallel {way}: its state cannot be shared"):
        alone(tmp_path, Wave(), parallel=way, eight_bit=True)


def test_the_engine_is_told_single_precision_and_the_share_of_a_process() -> None:
    told = settings(replace(LOOP, batch=48, accumulate=3, clip_norm=0.5, precision="bf16"), 3, 8)
    assert told["train_micro_batch_size_per_gpu"] * told["gradient_accumulation_steps"] * 8 == 48
    assert told["gradient_clipping"] == 0.5
    assert told["zero_optimization"]["stage"] == 3
    assert told["torch_autocast"]["enabled"]
    assert "bf16" not in told
    assert "fp16" not in told
