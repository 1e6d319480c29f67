"""What the loop asks of a way to train over processes, in one process; several are in test_sharding and test_zero."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from accelerate import Accelerator

from geo4d.errors import InputError
from geo4d.training.loop import LoopConfig, Task
from geo4d.training.memory import WAYS
from geo4d.training.ways import OPEN, Way, open_way
from tests.support.sharded import LOOP, Overflowing, Part, Wave


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(mixed_precision="no", cpu=True)


def step(way: Way, number: int, clip_norm: float) -> tuple[torch.Tensor | None, bool]:
    loss, _ = way.wrapped(Part(torch.arange(8 * number, 8 * number + 8)))
    with way.synchronised(last=True):
        way.backward(loss)
    return way.step(clip_norm)


def test_every_way_of_the_loop_can_be_opened_and_planned() -> None:
    ways = get_args(LoopConfig.__annotations__["parallel"])
    assert set(ways) == set(OPEN)
    assert set(ways) | {"one"} == set(WAYS)


def test_one_process_steps_and_drops_its_gradients(tmp_path: Path, accelerator: Accelerator) -> None:
    task = Wave()
    way = open_way(task, LOOP, tmp_path, accelerator)
    assert isinstance(way, Way)
    assert sorted(way.parameters) == sorted(task.trained()) == sorted(way.average.values)
    before = {name: value.detach().clone() for name, value in way.parameters.items()}
    found, taken = step(way, 0, clip_norm=0.1)
    assert taken
    assert float(found) > 0
    assert all(not torch.equal(before[name], value) for name, value in way.parameters.items())
    assert all(value.grad is None or not value.grad.any() for value in way.parameters.values())
    assert step(way, 1, clip_norm=0)[0] is None
    assert way.averaged() is None  # the task is whole


def test_gradients_that_are_not_finite_leave_the_weights(tmp_path: Path, accelerator: Accelerator) -> None:
    way = open_way(Overflowing(), LOOP, tmp_path, accelerator)
    before = {name: value.detach().clone() for name, value in way.parameters.items()}
    found, taken = step(way, 2, clip_norm=0.1)
    assert not taken
    assert not torch.isfinite(found)
    assert all(torch.equal(before[name], value) for name, value in way.parameters.items())


@pytest.mark.parametrize("parallel", ["fsdp", "zero2", "zero3"])
def test_what_cannot_be_shared_is_refused_before_the_task_is_touched(
    tmp_path: Path, accelerator: Accelerator, parallel: str
) -> None:
    loop = replace(LOOP, parallel=parallel)
    with pytest.raises(ValueError, match=f"several processes for --parallel {parallel} .*torchrun"):
        open_way(Wave(), loop, tmp_path, accelerator)
    with pytest.raises(ValueError, match=f"--eight-bit without --parallel {parallel}"):
        open_way(Wave(), replace(loop, eight_bit=True), tmp_path, accelerator)


def test_a_task_without_parameters_and_a_state_of_another_way_are_refused(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    with pytest.raises(ValueError, match="with parameters to train"):
        open_way(Task(), LOOP, tmp_path, accelerator)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/zero.json").write_text("{}")
    with pytest.raises(InputError, match="saved with --parallel zero2 or zero3, not ddp"):
        open_way(Wave(), LOOP, tmp_path, accelerator)
