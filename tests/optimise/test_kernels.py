import pytest
import torch

from geo4d.optimise.kernels import cauchy_cost, cauchy_weight, norm_weight


@pytest.mark.parametrize("width", [0.1, 1.0, 7.0])
def test_the_weight_is_the_slope_of_the_cost(width):
    squared = torch.logspace(-4, 4, 30, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(cauchy_cost(squared, width).sum(), squared)
    torch.testing.assert_close(slope, cauchy_weight(squared.detach(), width))


def test_small_residuals_cost_their_square_and_outliers_hardly_more_than_each_other():
    small = torch.tensor([1e-6], dtype=torch.float64)
    torch.testing.assert_close(cauchy_cost(small, 1.0), small, rtol=1e-5, atol=0)
    far = cauchy_cost(torch.tensor([1e6, 4e6], dtype=torch.float64), 1.0)
    assert float(far[1] - far[0]) == pytest.approx(1.386, abs=1e-3)


def test_a_weighted_square_pulls_as_its_length():
    residual = torch.tensor([[3.0, 4.0], [0.0, 0.001]])
    length = residual.norm(dim=1)
    pull = norm_weight(length, 0.01)[:, None] * residual
    torch.testing.assert_close(pull[0].norm(), torch.tensor(1.0))
    assert float(pull[1].norm()) == pytest.approx(0.1)
