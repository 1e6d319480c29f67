import numpy as np
import pytest
import torch

from geo4d.fusion.solver import Blocks, BorderedBandSystem, gauss_newton


def random_pieces(num_band: int, num_border: int, reach: int, seed: int = 0):
    """Pieces along a band, each also touching the border and the number that means "held fixed"."""
    generator = torch.Generator().manual_seed(seed)
    total = num_band + num_border
    starts = torch.arange(0, num_band - reach + 1)
    columns = starts[:, None] + torch.arange(reach)
    border = torch.arange(num_band, total + 1).expand(len(starts), -1)
    columns = torch.cat([columns, border], 1)
    root = torch.randn(len(starts), columns.shape[1], 2 * reach, generator=generator, dtype=torch.float64)
    gradient = torch.randn(len(starts), columns.shape[1], generator=generator, dtype=torch.float64)
    return Blocks(columns, root @ root.mT, gradient)


def dense_system(piece: Blocks, total: int) -> tuple[np.ndarray, np.ndarray]:
    matrix, gradient = np.zeros((total + 1, total + 1)), np.zeros(total + 1)
    for columns, hessian, part in zip(
        piece.columns.numpy(), piece.hessian.numpy(), piece.gradient.numpy(), strict=True
    ):
        matrix[np.ix_(columns, columns)] += hessian
        gradient[columns] += part
    return matrix[:total, :total], gradient[:total]


@pytest.mark.parametrize(("num_band", "num_border", "reach"), [(30, 4, 5), (30, 0, 5), (7, 3, 7), (50, 1, 3)])
def test_the_step_is_that_of_the_dense_system(num_band, num_border, reach):
    piece = random_pieces(num_band, num_border, reach)
    total = num_band + num_border
    system = BorderedBandSystem([piece.columns], num_band, total)
    system.assemble([piece])
    matrix, gradient = dense_system(piece, total)
    damping = 1e-3
    expected = -np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), gradient)
    assert np.allclose(system.solve(damping, None), expected, rtol=1e-6, atol=1e-9)


def test_a_constraint_is_kept():
    piece = random_pieces(20, 2, 4)
    system = BorderedBandSystem([piece.columns], 20, 22)
    system.assemble([piece])
    constraint = np.zeros(22)
    constraint[[3, 8, 21]] = 1
    step = system.solve(1e-6, constraint)
    assert constraint @ step == pytest.approx(0, abs=1e-10)
    matrix, gradient = dense_system(piece, 22)
    # What is left of the gradient points along the constraint.
    left = gradient + matrix @ step
    assert np.allclose(left[constraint == 0], 0, atol=1e-4 * np.abs(gradient).max())
    assert np.ptp(left[constraint == 1]) < 1e-4 * np.abs(gradient).max()


def test_an_indefinite_system_gives_no_step():
    piece = random_pieces(12, 1, 3)
    system = BorderedBandSystem([piece.columns], 12, 13)
    system.assemble([Blocks(piece.columns, -piece.hessian, piece.gradient)])
    assert system.solve(1e-6, None) is None


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
        residual = state - self.places
        weight = 1 / residual.abs().clamp(min=width)
        pull = Blocks(self.single, weight[:, None, None], (weight * residual)[:, None])
        jacobian = torch.tensor([[-1.0, 1.0]]).double()
        matrix = (jacobian.T @ jacobian).expand(len(self.pair), 2, 2)
        return [pull, Blocks(self.pair, matrix, state.diff()[:, None] * jacobian)]

    def system(self):
        return BorderedBandSystem([self.single, self.pair], len(self.places), len(self.places))

    def constraint(self):
        return None

    def retract(self, state, step):
        return state + torch.from_numpy(step)


def test_the_loop_reaches_the_minimum_and_ignores_the_outlier():
    places = torch.zeros(9, dtype=torch.float64)
    places[4] = 100.0
    start = torch.linspace(-1, 1, 9, dtype=torch.float64)
    state, report = gauss_newton(SumOfNorms(places), start, num_steps=40, width_start=1.0, width_end=1e-6)
    assert report.cost_end < report.cost_start
    # The outlier pulls with force 1, shared by the springs to both sides.
    assert float(state[4]) == pytest.approx(0.5, abs=1e-2)
    assert float(state[[0, 1, 2, 3, 5, 6, 7, 8]].abs().max()) < 1e-2
