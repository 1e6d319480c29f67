import numpy as np
import pytest
import torch

from geo4d.optimise.band import Blocks, BorderedBandSystem, factor_band, solve_bordered


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


def tridiagonal(num_blocks: int, width: int, num_border: int, seed: int = 0):
    """A positive block-tridiagonal matrix with a border: its pieces, and the whole."""
    g = torch.Generator().manual_seed(seed)
    n = num_blocks * width
    root = torch.randn(n + num_border, n + num_border, generator=g, dtype=torch.float64)
    at = torch.arange(n) // width
    near = (at[:, None] - at).abs() <= 1
    whole = root @ root.mT
    whole[:n, :n] *= near
    whole += 4 * (n + num_border) * torch.eye(n + num_border, dtype=torch.float64)
    blocks = [slice(k * width, (k + 1) * width) for k in range(num_blocks)]
    diagonal = torch.stack([whole[b, b] for b in blocks])
    below = torch.stack([whole[blocks[k + 1], blocks[k]] for k in range(num_blocks - 1)] or [diagonal[0]])
    return diagonal, below[: num_blocks - 1], whole


@pytest.mark.parametrize(("num_blocks", "width", "num_border"), [(1, 4, 0), (3, 4, 0), (5, 3, 2), (2, 1, 1)])
def test_the_bordered_solution_is_that_of_the_whole_matrix(num_blocks, width, num_border):
    diagonal, below, whole = tridiagonal(num_blocks, width, num_border)
    n = num_blocks * width
    right = torch.randn(n + num_border, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = factor_band(lambda k: diagonal[k], below, num_blocks=num_blocks)
    assert factor is not None
    found = solve_bordered(factor, whole[n:, :n], whole[n:, n:], right[:n], right[n:])
    assert found is not None
    torch.testing.assert_close(torch.cat(found), torch.linalg.solve(whole, right))


def test_the_band_is_solved_for_the_limited_step_of_the_border():
    diagonal, below, whole = tridiagonal(3, 2, 1)
    right = 100 * torch.ones(7, 1, dtype=torch.float64)
    factor = factor_band(lambda k: diagonal[k], below, num_blocks=3)
    assert factor is not None
    found = solve_bordered(factor, whole[6:, :6], whole[6:, 6:], right[:6], right[6:], limit=0.1)
    assert found is not None
    assert float(found[1]) == pytest.approx(0.1)
    torch.testing.assert_close(whole[:6, :6] @ found[0] + 0.1 * whole[:6, 6:], right[:6])


def test_what_is_not_positive_has_no_factor():
    diagonal, below, whole = tridiagonal(3, 2, 1)
    assert factor_band(lambda k: -diagonal[k], below, num_blocks=3) is None
    factor = factor_band(lambda k: diagonal[k], below, num_blocks=3)
    assert factor is not None
    sides = torch.ones(6, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    assert solve_bordered(factor, whole[6:, :6], -whole[6:, 6:], *sides) is None
