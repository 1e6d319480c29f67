import math

import pytest
import torch

from geo4d.optimise.band import Blocks, BorderedBandSystem
from geo4d.optimise.damped import Problem, minimise


class SumOfNorms:
    """Points on a line, pulled to given places by a 1-norm and to each other by a square."""

    def __init__(self, places: torch.Tensor) -> None:
        self.places = places
        size = len(places)
        self.single = torch.arange(size)[:, None]
        self.pair = torch.stack([torch.arange(size - 1), torch.arange(1, size)], 1)

    def evaluate(self, state, width):
        cost = (state - self.places).abs().sum() + 0.5 * (state.diff() ** 2).sum()
        return float(cost), state

    def linearise(self, state, width):
        system = BorderedBandSystem([self.single, self.pair], len(self.places), len(self.places))
        system.assemble(self.pieces(state, width))

        def step(damping):
            found = system.solve(damping, None)
            return None if found is None else state + torch.from_numpy(found)

        return step

    def pieces(self, state, width):
        residual = state - self.places
        weight = 1 / residual.abs().clamp(min=width)
        pull = Blocks(self.single, weight[:, None, None], (weight * residual)[:, None])
        jacobian = torch.tensor([[-1.0, 1.0]]).double()
        matrix = (jacobian.T @ jacobian).expand(len(self.pair), 2, 2)
        return [pull, Blocks(self.pair, matrix, state.diff()[:, None] * jacobian)]


def test_the_loop_reaches_the_minimum_and_ignores_the_outlier():
    places = torch.zeros(9, dtype=torch.float64)
    places[4] = 100.0
    start = torch.linspace(-1, 1, 9, dtype=torch.float64)
    state, report = minimise(
        SumOfNorms(places),
        start,
        num_steps=40,
        widths=(1.0, 1e-6),
        damping=1e-4,
        tolerance=2e-5,
        least_steps=4,
    )
    assert report.cost_end < report.cost_start
    # The outlier pulls with force 1, shared by the springs to both sides.
    assert float(state[4]) == pytest.approx(0.5, abs=1e-2)
    assert float(state[[0, 1, 2, 3, 5, 6, 7, 8]].abs().max()) < 1e-2


class Valley:
    """Rosenbrock's valley as a sum of two squares; Gauss-Newton steps are far too long at first."""

    def __init__(self) -> None:
        self.tried: list[float] = []

    def residual(self, x):
        return torch.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])

    def evaluate(self, state, width):
        return float(self.residual(state).square().sum()), state

    def linearise(self, state, width):
        J = torch.autograd.functional.jacobian(self.residual, state)
        H, g = J.T @ J, J.T @ self.residual(state)

        def step(damping):
            self.tried.append(damping)
            return state - torch.linalg.solve(H + damping * torch.diag(H.diagonal()), g)

        return step


def test_damping_rises_until_a_step_costs_less_and_falls_after_it():
    valley = Valley()
    assert isinstance(valley, Problem)
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    state, report = minimise(valley, start, num_steps=200, widths=(1.0, 1.0), damping=1e-3, tolerance=1e-14)
    torch.testing.assert_close(state, torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)
    assert report.cost_end < 1e-10 < report.cost_start
    assert max(valley.tried) > 1e-3
    assert min(valley.tried) < 1e-3


def test_nothing_is_accepted_that_costs_more_or_is_no_number():
    class Wall(Valley):
        def evaluate(self, state, width):
            return (1.0 if bool((state == 0).all()) else math.nan), state

    start = torch.zeros(2, dtype=torch.float64)
    state, report = minimise(Wall(), start, num_steps=5, widths=(1.0, 1.0), damping=1e-3, tolerance=1e-5)
    assert torch.equal(state, start)
    assert report.num_steps == 0
    assert report.reason == "no step lowers the cost"


@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_no_steps_are_no_change(damping):
    start = torch.tensor([0.3, 0.4], dtype=torch.float64)
    state, report = minimise(Valley(), start, num_steps=0, widths=(1.0, 1.0), damping=damping, tolerance=1e-5)
    assert torch.equal(state, start)
    assert report.cost_end == report.cost_start
