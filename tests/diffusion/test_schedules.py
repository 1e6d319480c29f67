"""Beta tables and visited timesteps."""

import pytest
import torch

from geo4d.diffusion.schedules import (
    ScheduleConfig,
    make_ddim_table,
    make_schedule,
    rescale_to_zero_terminal_snr,
    schedule_buffers,
    spaced_timesteps,
    sqrt_linear_betas,
)


def test_zero_terminal_snr_keeps_the_start_and_ends_without_signal() -> None:
    before = sqrt_linear_betas()
    after = rescale_to_zero_terminal_snr(before)
    assert after[0] == pytest.approx(float(before[0]), rel=1e-12)
    assert float(torch.cumprod(1 - after, 0)[-1]) == 0.0
    assert after[-1] == 1.0


def test_released_schedule() -> None:
    schedule = make_schedule()
    assert schedule.scale.shape == (1400,)
    assert float(schedule.scale[199]) == pytest.approx(0.8504, abs=1e-4)
    assert float(schedule.scale[999]) == pytest.approx(0.7)
    assert schedule_buffers(schedule)["alphas_cumprod"][-1] == 0
    assert schedule_buffers(schedule)["alphas_cumprod_prev"][0] == 1
    flat = make_schedule(ScheduleConfig(dynamic_rescale=False, zero_terminal_snr=False))
    assert (flat.scale == 1).all()
    assert flat.alphas_cumprod[-1] > 0


@pytest.mark.parametrize(
    ("steps", "spacing", "expected"),
    [
        (5, "uniform_trailing", [199, 399, 599, 799, 999]),
        (1, "uniform_trailing", [999]),
        (4, "uniform", [1, 251, 501, 751]),
    ],
)
def test_visited_timesteps(steps: int, spacing: str, expected: list[int]) -> None:
    assert spaced_timesteps(steps, 1000, spacing).tolist() == expected


def test_uniform_gives_one_more_when_it_does_not_divide() -> None:
    assert len(spaced_timesteps(30, 1000, "uniform")) == 31
    assert spaced_timesteps(1000, 1000, "uniform").max() == 999


@pytest.mark.parametrize(("steps", "spacing"), [(0, "uniform"), (1001, "uniform"), (5, "linear")])
def test_wrong_steps(steps: int, spacing: str) -> None:
    with pytest.raises((ValueError, TypeError), match=r"expected|spacing|Type-check"):
        spaced_timesteps(steps, 1000, spacing)


def test_last_step_as_published_or_clean() -> None:
    schedule = make_schedule()
    published, clean = (make_ddim_table(schedule, 5, clean_end=c) for c in (False, True))
    assert float(published.alphas_prev[0]) == pytest.approx(0.99915, abs=1e-5)
    assert float(published.scale_prev[0]) == float(published.scale[0])
    assert float(clean.alphas_prev[0]) == 1.0
    assert float(clean.scale_prev[0]) == 1.0
    assert torch.equal(published.alphas_prev[1:], clean.alphas_prev[1:])


def test_eta_adds_the_ancestral_noise() -> None:
    schedule = make_schedule(ScheduleConfig(zero_terminal_snr=False))
    table = make_ddim_table(schedule, 1000, "uniform_trailing", 1.0)
    posterior = schedule_buffers(schedule)["posterior_variance"]
    torch.testing.assert_close(table.sigmas[1:] ** 2, posterior[1:], rtol=1e-4, atol=1e-9)
    assert (make_ddim_table(schedule, 50).sigmas == 0).all()
