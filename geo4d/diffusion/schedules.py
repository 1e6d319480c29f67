"""Discrete diffusion schedules: beta tables, zero-terminal-SNR, dynamic rescale, and the timesteps DDIM
visits.

Tables are computed in float64 and rounded to float32 once, where they are read.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Spacing = Literal["uniform_trailing", "uniform"]
"""``uniform_trailing`` starts at the last timestep; ``uniform`` starts at 1 and may leave the end
unvisited.
"""


def sqrt_linear_betas(
    num_timesteps: int = 1000, start: float = 0.00085, end: float = 0.012
) -> Float[Tensor, " n"]:
    """Betas whose square roots are equally spaced, float64.

    Source: the schedule of latent diffusion models.
    """
    return torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64) ** 2


def rescale_to_zero_terminal_snr(betas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Shift and scale the signal rates so that the last timestep carries no signal at all.

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", Algorithm 1.
    """
    rate = torch.sqrt(torch.cumprod(1.0 - betas, 0))
    rate = (rate - rate[-1]) * (rate[0] / (rate[0] - rate[-1]))
    power = rate**2
    return 1.0 - torch.cat([power[:1], power[1:] / power[:-1]])


def dynamic_scale(
    num_timesteps: int = 1000, base_scale: float = 0.7, turning_step: int = 400
) -> Float[Tensor, " n_and_turn"]:
    """The factor that shrinks the clean latent at each timestep, float64.

    It falls linearly from 1 to ``base_scale`` over ``turning_step`` entries and then stays for
    ``num_timesteps`` more (the table of the released model is longer than its schedule; the tail is never
    read).
    Source: DynamiCrafter's dynamic rescale.
    """
    ramp = torch.linspace(1.0, base_scale, turning_step, dtype=torch.float64)
    return torch.cat([ramp, ramp.new_full((num_timesteps,), base_scale)])


@dataclass(frozen=True)
class ScheduleConfig:
    """Options of a discrete schedule.

    Attributes:
        num_timesteps: length of the table.
        beta_start, beta_end: first and last beta before rescaling.
        zero_terminal_snr: rescale so that the last timestep is pure noise.
        dynamic_rescale: shrink the clean latent by ``dynamic_scale``.
        base_scale: the smallest factor of the dynamic rescale.
        turning_step: length of its ramp.
    """

    num_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    zero_terminal_snr: bool = True
    dynamic_rescale: bool = True
    base_scale: float = 0.7
    turning_step: int = 400


@dataclass(frozen=True)
class Schedule:
    """Tables of one schedule over all timesteps.

    Attributes:
        betas: float64.
        alphas_cumprod: share of signal power left at each timestep, float64.
        scale: factor on the clean latent at each timestep (ones without dynamic rescale), float64.
    """

    betas: Float[Tensor, " n"]
    alphas_cumprod: Float[Tensor, " n"]
    scale: Float[Tensor, " n_scale"]


def make_schedule(config: ScheduleConfig | None = None) -> Schedule:
    """Compute the tables of ``config`` (the released Geo4D schedule when None)."""
    config = config or ScheduleConfig()
    betas = sqrt_linear_betas(config.num_timesteps, config.beta_start, config.beta_end)
    if config.zero_terminal_snr:
        betas = rescale_to_zero_terminal_snr(betas)
    scale = dynamic_scale(config.num_timesteps, config.base_scale, config.turning_step)
    if not config.dynamic_rescale:
        scale = torch.ones_like(scale)
    return Schedule(betas, torch.cumprod(1.0 - betas, 0), scale)


def schedule_buffers(schedule: Schedule) -> dict[str, Float[Tensor, " n"]]:
    """The derived tables that a published v-prediction checkpoint carries beside its weights, float32, by
    name.

    The reciprocal tables are zero there: they are undefined where no signal is left and nothing reads them.
    """
    power = schedule.alphas_cumprod
    before = torch.cat([power.new_ones(1), power[:-1]])
    posterior = schedule.betas * (1.0 - before) / (1.0 - power)
    tables = {
        "betas": schedule.betas,
        "alphas_cumprod": power,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": power.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1.0 - power).sqrt(),
        "log_one_minus_alphas_cumprod": (1.0 - power).log(),
        "sqrt_recip_alphas_cumprod": torch.zeros_like(power),
        "sqrt_recipm1_alphas_cumprod": torch.zeros_like(power),
        "posterior_variance": posterior,
        "posterior_log_variance_clipped": posterior.clamp(min=1e-20).log(),
        "posterior_mean_coef1": schedule.betas * before.sqrt() / (1.0 - power),
        "posterior_mean_coef2": (1.0 - before) * (1.0 - schedule.betas).sqrt() / (1.0 - power),
        "lvlb_weights": torch.ones_like(power),
        "scale_arr": schedule.scale,
    }
    return {name: table.float() for name, table in tables.items()}


def spaced_timesteps(
    num_steps: int, num_timesteps: int = 1000, spacing: Spacing = "uniform_trailing"
) -> Int[Tensor, " steps"]:
    """Timesteps that a sampler of ``num_steps`` visits, increasing.

    ``uniform`` gives one more than asked for when ``num_steps`` does not divide ``num_timesteps`` (as
    published).

    Raises:
        ValueError: fewer than one step, more steps than timesteps, or an unknown spacing.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"expected between 1 and {num_timesteps} sampling steps, got {num_steps}")
    if spacing == "uniform_trailing":
        descending = torch.arange(num_timesteps, 0, -num_timesteps / num_steps, dtype=torch.float64)
        return (descending.round().long() - 1).flip(0)
    if spacing == "uniform":
        return (torch.arange(0, num_timesteps, num_timesteps // num_steps) + 1).clamp(max=num_timesteps - 1)
    raise ValueError(f"expected spacing 'uniform_trailing' or 'uniform', got {spacing!r}")


@dataclass(frozen=True)
class DdimTable:
    """What DDIM needs at each visited timestep, in increasing time (sampling runs from the last entry),
    float32.

    Attributes:
        timesteps: visited timesteps.
        alphas: share of signal power at the timestep.
        alphas_prev: the same where the step leads to.
        sigmas: standard deviation of the noise a step adds.
        scale: factor on the clean latent at the timestep.
        scale_prev: the same where the step leads to.
    """

    timesteps: Int[Tensor, " steps"]
    alphas: Float[Tensor, " steps"]
    alphas_prev: Float[Tensor, " steps"]
    sigmas: Float[Tensor, " steps"]
    scale: Float[Tensor, " steps"]
    scale_prev: Float[Tensor, " steps"]


def make_ddim_table(
    schedule: Schedule,
    num_steps: int,
    spacing: Spacing = "uniform_trailing",
    eta: float = 0.0,
    *,
    clean_end: bool = False,
) -> DdimTable:
    """The table of a DDIM run.

    Args:
        schedule: the trained schedule.
        num_steps, spacing: which timesteps are visited.
        eta: 0 is deterministic, 1 adds as much noise as ancestral sampling.
        clean_end: let the last step end on the clean, unscaled latent. By default it ends where the authors'
            code
            ends: at the first entry of the table, with the scale of the last visited timestep still on the
                latent
            (``docs/decisions/geo4d-last-step-scale.md``).
    """
    timesteps = spaced_timesteps(num_steps, schedule.alphas_cumprod.shape[0], spacing)
    alphas = schedule.alphas_cumprod[timesteps]
    scale = schedule.scale[timesteps]
    if clean_end:
        alphas_prev, scale_prev = alphas.new_ones(1), scale.new_ones(1)
    else:
        alphas_prev, scale_prev = schedule.alphas_cumprod[:1], scale[:1]
    alphas_prev = torch.cat([alphas_prev, alphas[:-1]])
    scale_prev = torch.cat([scale_prev, scale[:-1]])
    variance = (1 - alphas_prev) / (1 - alphas) * (1 - alphas / alphas_prev)
    sigmas = eta * variance.clamp(min=0).sqrt()
    tables = (alphas, alphas_prev, sigmas, scale, scale_prev)
    return DdimTable(timesteps, *(table.float() for table in tables))
