"""Euler integration of the probability-flow ODE in noise-level form. Knows no network."""

import itertools
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from geo4d.diffusion.karras import Denoise


def euler_step(
    x: Float[Tensor, "*s"], x0: Float[Tensor, "*s"], noise_level: float, next_level: float
) -> Float[Tensor, "*s"]:
    """One explicit Euler step of dx / d(noise_level) = (x - x0) / noise_level.

    Args:
        x: noisy sample at ``noise_level`` > 0.
        x0: its denoised estimate.
        noise_level, next_level: from and to.
    """
    return x + (x - x0) / noise_level * (next_level - noise_level)


def sample_euler(
    denoise: Denoise,
    x: Float[Tensor, "*s"],
    noise_levels: Float[Tensor, " n"],
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "*s"]:
    """Integrate from the first to the last of ``noise_levels``.

    Args:
        denoise: ``(x, noise_level) -> x0``.
        x: sample at the first level.
        noise_levels: decreasing; only the last may be 0.
        on_step: called after every step with its index and the new sample.
    Returns:
        The sample at the last level, in the dtype of ``x``; each step is computed in float32.
    """
    levels = noise_levels.tolist()
    for step, (level, next_level) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, level)
        x = euler_step(x.float(), x0.float(), level, next_level).to(x.dtype)
        if on_step is not None:
            on_step(step, x)
    return x
