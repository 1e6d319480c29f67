import math

import pytest
import torch

from geo4d.diffusion.euler import euler_step, sample_euler
from geo4d.diffusion.karras import karras_noise_levels

MEAN, DEVIATION = 0.7, 1.3


def denoise(x, noise_level):
    """The exact denoiser of a normal distribution."""
    return MEAN + DEVIATION**2 / (DEVIATION**2 + noise_level**2) * (x - MEAN)


def exact(x, start, end):
    """The exact path of the probability-flow equation for that distribution."""
    return MEAN + (x - MEAN) * math.sqrt((DEVIATION**2 + end**2) / (DEVIATION**2 + start**2))


def error(num_steps):
    levels = karras_noise_levels(num_steps, 0.01, 20.0)
    x = torch.linspace(-30, 30, 13)
    return (sample_euler(denoise, x, levels) - exact(x, 20.0, 0.0)).abs().max()


def test_error_falls_with_the_first_power_of_the_step():
    coarse, middle, fine = error(40), error(80), error(160)
    assert 1.7 < coarse / middle < 2.4
    assert 1.7 < middle / fine < 2.4


def test_a_step_to_zero_lands_on_the_estimate():
    x, x0 = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(euler_step(x, x0, 2.5, 0.0), x0)
    torch.testing.assert_close(euler_step(x, x0, 2.5, 2.5), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_reported_and_the_type_is_kept(dtype):
    seen = []
    out = sample_euler(
        denoise, torch.randn(4, dtype=dtype), karras_noise_levels(3), lambda i, x: seen.append((i, x))
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[-1][1], out)
    assert out.dtype == dtype
