"""DDIM on distributions whose answer is known in closed form."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from geo4d.diffusion.samplers import gaussian_noise, iter_ddim, sample_ddim
from geo4d.diffusion.schedules import ScheduleConfig, make_ddim_table, make_schedule

PLAIN = make_schedule(ScheduleConfig(dynamic_rescale=False))


def gaussian_denoiser(mean: float, std: float):
    """Best estimate of x0 ~ N(mean, std^2) from sqrt(a) x0 + sqrt(1 - a) noise."""

    def denoise(x: Tensor, timestep: Tensor) -> Tensor:
        a = PLAIN.alphas_cumprod[timestep].float().reshape(-1, *([1] * (x.ndim - 1)))
        gain = std**2 * a.sqrt() / (a * std**2 + 1 - a)
        return mean + gain * (x - a.sqrt() * mean)

    return denoise


def exact_end(x: Tensor, mean: float, std: float) -> Tensor:
    """The probability flow takes quantiles to quantiles."""
    return mean + std * x


def test_error_falls_with_the_order_of_the_method() -> None:
    x = torch.linspace(-2, 2, 9)[None]
    errors = []
    for steps in (20, 40, 80, 160):
        table = make_ddim_table(PLAIN, steps, clean_end=True)
        end = sample_ddim(gaussian_denoiser(0.7, 0.4), x, table)
        errors.append(float((end - exact_end(x, 0.7, 0.4)).abs().max()))
    ratios = [a / b for a, b in pairwise(errors)]
    assert errors[-1] < 0.03
    assert all(1.6 < ratio < 2.1 for ratio in ratios)


def test_a_point_is_reached_exactly_in_one_step() -> None:
    table = make_ddim_table(PLAIN, 1, clean_end=True)
    end = sample_ddim(lambda x, t: torch.full_like(x, 0.3), torch.randn(2, 5), table)
    torch.testing.assert_close(end, torch.full((2, 5), 0.3))


def test_ancestral_noise_gives_the_right_spread(generator: torch.Generator) -> None:
    x = torch.randn(1, 20000, generator=generator)
    table = make_ddim_table(PLAIN, 250, eta=1.0, clean_end=True)

    def noise(step: int) -> Tensor:
        return gaussian_noise((1, 20000), generator, "cpu")

    end = sample_ddim(gaussian_denoiser(-0.5, 0.6), x, table, noise)
    assert float(end.mean()) == pytest.approx(-0.5, abs=0.02)
    assert float(end.std()) == pytest.approx(0.6, abs=0.03)
    with pytest.raises(ValueError, match="step noise"):
        sample_ddim(gaussian_denoiser(0, 1), x, table)


def test_dynamic_scale_is_left_on_the_published_end() -> None:
    schedule = make_schedule()
    clean = torch.full((1, 4), 2.0)

    def denoise(x: Tensor, timestep: Tensor) -> Tensor:
        return clean * schedule.scale[timestep].float()[:, None]

    published = list(iter_ddim(denoise, torch.randn(1, 4), make_ddim_table(schedule, 5)))
    assert len(published) == 5
    torch.testing.assert_close(published[-1][1], clean * 0.85037595)
    principled = sample_ddim(denoise, torch.randn(1, 4), make_ddim_table(schedule, 5, clean_end=True))
    torch.testing.assert_close(principled, clean)


def test_steps_are_reported() -> None:
    seen: list[int] = []
    sample_ddim(
        lambda x, t: x, torch.ones(1, 2), make_ddim_table(PLAIN, 3), on_step=lambda k, x: seen.append(k)
    )
    assert seen == [0, 1, 2]
