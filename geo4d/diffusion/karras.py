"""Noise levels and preconditioning in the form of Karras et al., for networks that predict v.

Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", Eq. (5) for the levels;
the v-prediction preconditioning with data deviation 1 is the one Stable Video Diffusion is trained with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""``denoise(x, noise_level) -> x0``: the form of a network that a sampler sees."""

Network = Callable[[Tensor, float], Tensor]
"""``network(scaled x, timestep) -> v``."""


def karras_noise_levels(
    num_steps: int, minimum: float = 0.002, maximum: float = 700.0, rho: float = 7.0
) -> Float[Tensor, " steps_and_zero"]:
    """Decreasing noise levels from ``maximum`` to ``minimum``, then 0.

    Args:
        num_steps: number of non-zero levels; with one step only ``maximum`` is visited.
        minimum, maximum: smallest and largest level, unit of the latent.
        rho: larger values spend more steps at small noise.
    Returns:
        ``num_steps + 1`` levels, float32 (computed in float64).
    Raises:
        ValueError: no step, or levels that do not satisfy 0 < minimum <= maximum.
    """
    if num_steps < 1:
        raise ValueError(f"expected at least one sampling step, got {num_steps}")
    if not 0 < minimum <= maximum:
        raise ValueError(f"expected 0 < minimum <= maximum noise level, got {minimum} and {maximum}")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = minimum ** (1 / rho), maximum ** (1 / rho)
    levels = (high + ramp * (low - high)) ** rho
    return torch.cat([levels, levels.new_zeros(1)]).float()


@dataclass(frozen=True)
class Preconditioning:
    """Factors around a v-predicting network at one noise level (data deviation 1).

    ``x0 = skip * x + out * network(scale_in * x, timestep)``
    """

    skip: float
    out: float
    scale_in: float
    timestep: float


def v_preconditioning(noise_level: float) -> Preconditioning:
    """The factors at ``noise_level`` > 0; the timestep is ln(noise_level) / 4.

    Raises:
        ValueError: the level is not positive.
    """
    if noise_level <= 0:
        raise ValueError(f"expected a positive noise level, got {noise_level}")
    variance = noise_level**2 + 1
    return Preconditioning(
        skip=1 / variance,
        out=-noise_level / math.sqrt(variance),
        scale_in=1 / math.sqrt(variance),
        timestep=0.25 * math.log(noise_level),
    )


def v_denoiser(network: Network) -> Denoise:
    """Wrap a v-predicting network into ``denoise(x, noise_level) -> x0``.

    The combination is done in float32 whatever the network returns, because at level 700 the sum of ``skip * x`` and
    ``out * v`` has no digits to spare in half precision.
    """

    def denoise(x: Tensor, noise_level: float) -> Tensor:
        factors = v_preconditioning(noise_level)
        v = network(x * factors.scale_in, factors.timestep)
        return x.float() * factors.skip + v.float() * factors.out

    return denoise


def guided(conditional: Network, unconditional: Network, scale: float) -> Network:
    """Classifier-free guidance on the network's output: u + scale * (c - u), two separate calls."""

    def network(x: Tensor, timestep: float) -> Tensor:
        without = unconditional(x, timestep)
        return without + scale * (conditional(x, timestep) - without)

    return network
