"""Steps of the optimiser, and the average of the weights that they leave behind."""

import pytest
import torch
from torch import nn

from geo4d.training.optimiser import MovingAverage, make_optimiser, step_if_finite


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


def test_a_step_is_that_of_adamw_with_decay_of_matrices_alone() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    optimiser = make_optimiser(dict(layer.named_parameters()), 1e-2, 0.5, (0.9, 0.98))
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    for name, value in layer.named_parameters():
        decayed = before[name] * (1 - 1e-2 * (0.5 if name == "weight" else 0.0))
        torch.testing.assert_close(
            value.detach(), decayed - 1e-2
        )  # the first step of Adam is the rate, by sign


def test_8_bits_take_a_quarter_of_the_memory() -> None:
    pytest.importorskip("bitsandbytes")
    layer = nn.Linear(256, 256)
    optimiser = make_optimiser(dict(layer.named_parameters()), 1e-3, 0.0, (0.9, 0.98), eight_bit=True)
    layer(torch.ones(1, 256)).sum().backward()
    optimiser.step()
    state = optimiser.state[layer.weight]
    held = sum(state[name].nbytes for name in ("state1", "state2", "absmax1", "absmax2"))
    assert held <= 1.02 * 2 * layer.weight.numel()


@pytest.mark.parametrize(
    ("norm", "taken"), [(None, True), (2.0, True), (float("inf"), False), (float("nan"), False)]
)
def test_a_step_is_left_out_where_the_gradients_are_not_finite(norm: float | None, taken: bool) -> None:
    value = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([value], lr=0.5)
    value.grad = torch.ones(2)
    assert step_if_finite(optimiser, None if norm is None else torch.tensor(norm)) == taken
    assert value.grad is None
    assert value.tolist() == ([0.5, 0.5] if taken else [1.0, 1.0])
