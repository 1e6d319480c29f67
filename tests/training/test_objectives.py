import math

import pytest
import torch

from geo4d.diffusion.schedules import ScheduleConfig, make_schedule
from geo4d.training.objectives import (
    denoising_loss,
    draw_timesteps,
    gradient_loss,
    laplace_likelihood,
    scale_shift_invariant_loss,
)


def test_denoising_loss_is_the_plain_mean_square() -> None:
    a, b = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    assert float(denoising_loss(a, b)) == pytest.approx(float(torch.nn.functional.mse_loss(a, b)), rel=1e-6)
    weight = torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None, None]
    only = ((a - b)[:, 0] ** 2).sum() / a.numel()
    assert float(denoising_loss(a, b, weight)) == pytest.approx(float(only), rel=1e-6)


def test_timesteps_end_at_pure_noise_as_often_as_asked() -> None:
    drawn = draw_timesteps(20_000, 0.6, torch.Generator().manual_seed(0))
    assert float((drawn == 999).float().mean()) == pytest.approx(0.6, abs=0.02)
    assert int(drawn.min()) >= 0
    rest = drawn[drawn < 999].float()
    assert float(rest.mean()) == pytest.approx(499, abs=10)
    power = make_schedule(ScheduleConfig(dynamic_rescale=False)).alphas_cumprod
    assert float(power[-1]) == 0.0


def test_the_invariant_loss_ignores_scale_and_shift_and_sees_the_rest() -> None:
    target = torch.rand(3, 500) * 4
    scaled = target * torch.tensor([[2.0], [5.0], [11.0]]) + 3
    assert float(scale_shift_invariant_loss(scaled, target)) < 0.02
    assert float(scale_shift_invariant_loss(-scaled, target)) > 0.5
    spoiled = scaled.clone()
    spoiled[:, :50] = 1e3
    valid = torch.ones_like(spoiled, dtype=torch.bool)
    valid[:, :50] = False
    assert float(scale_shift_invariant_loss(spoiled, target, valid)) < 0.02


def test_the_gradient_loss_ignores_an_offset() -> None:
    target = torch.rand(2, 1, 16, 24)
    assert float(gradient_loss(target + 5, target)) < 1e-4
    assert float(gradient_loss(target.flip(-1), target)) > 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_likelihood_is_a_density_and_its_best_sigma_is_the_error(channels: int) -> None:
    torch.manual_seed(0)
    error = torch.distributions.Laplace(0.0, 0.7).sample((20_000, channels))
    zero = torch.zeros_like(error)
    grid = torch.linspace(0.5, 6.0, 45)
    losses = torch.stack([laplace_likelihood(zero, error, s.expand(len(error))).mean() for s in grid])
    best = float(grid[losses.argmin()])
    assert best == pytest.approx(math.sqrt(2) * channels * 0.7, rel=0.12)
    if channels == 1:
        x = torch.linspace(-40, 40, 8_001)[:, None]
        density = torch.exp(-laplace_likelihood(torch.zeros_like(x), x, torch.full((len(x),), 1.3)))
        assert float(density.sum() * 0.01) == pytest.approx(1.0, abs=1e-3)


def test_the_gradient_of_the_likelihood() -> None:
    predicted = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    sigma = (torch.rand(5, dtype=torch.float64) + 0.5).requires_grad_()
    target = torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p, s: laplace_likelihood(p, target, s), (predicted, sigma))
