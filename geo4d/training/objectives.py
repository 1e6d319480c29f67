"""What training minimises: v-prediction, the one-step answer in pixels, and the likelihood of the point-map decoder."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def denoising_loss(
    predicted_v: Float[Tensor, "B ..."],
    target_v: Float[Tensor, "B ..."],
    weight: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of v, without weight per timestep.

    Args:
        weight: broadcast against the latent (for example one number per channel), or None.
    Source: Geo4D's released training step; Salimans & Ho for the target.
    """
    error = (predicted_v - target_v) ** 2
    return (error if weight is None else error * weight).mean()


def draw_timesteps(
    count: int, terminal_share: float, generator: torch.Generator, num_timesteps: int = 1000
) -> Int[Tensor, " count"]:
    """Timesteps of a batch: the last one with probability ``terminal_share``, otherwise any, uniformly.

    At the last timestep of a zero-terminal-SNR schedule the input is pure noise and v = -x0, so those samples train
    exactly the one-step answer.
    """
    last = num_timesteps - 1
    drawn = torch.randint(0, num_timesteps, (count,), generator=generator)
    terminal = torch.rand(count, generator=generator) < terminal_share
    return torch.where(terminal, last, drawn)


def scale_shift_invariant_loss(
    predicted: Float[Tensor, "B n"], target: Float[Tensor, "B n"], valid: Bool[Tensor, "B n"] | None = None
) -> Float[Tensor, ""]:
    """L1 between two signals after each is brought to mean 0 and mean absolute deviation 1.

    Source: Ranftl et al., "Towards Robust Monocular Depth Estimation" (MiDaS), Eq. (4) to (6), with means.
    """
    weight = torch.ones_like(predicted) if valid is None else valid.to(predicted)
    total = weight.sum(1, keepdim=True).clamp(min=1)

    def standardise(signal: Tensor) -> Tensor:
        centred = signal - (signal * weight).sum(1, keepdim=True) / total
        return centred / ((centred.abs() * weight).sum(1, keepdim=True) / total + 0.02)

    difference = (standardise(predicted) - standardise(target)).abs() * weight
    return (difference.sum(1) / total[:, 0]).mean()


def gradient_loss(
    predicted: Float[Tensor, "*b H W"], target: Float[Tensor, "*b H W"], num_scales: int = 3
) -> Float[Tensor, ""]:
    """L1 of the differences between neighbours at several scales: keeps steps in place and surfaces smooth.

    Source: Li & Snavely, "MegaDepth", Eq. (3).
    """
    error = predicted - target
    total = error.new_zeros(())
    for _ in range(num_scales):
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        if min(error.shape[-2:]) < 4:
            break
        error = torch.nn.functional.avg_pool2d(error.flatten(0, -3)[:, None], 2)[:, 0]
    return total


def laplace_likelihood(
    predicted: Float[Tensor, "*b C"], target: Float[Tensor, "*b C"], sigma: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """Negative log-likelihood of a pixel: sqrt(2) |x - x'|_1 / sigma + log(sqrt(2) sigma).

    The best ``sigma`` is sqrt(2) times the expected sum of the absolute errors of all ``C`` coordinates, so the mean
    absolute error of one coordinate is sigma / (sqrt(2) C).

    Args:
        sigma: > 0, unit of the coordinates.
    Source: Geo4D, loss of the point-map decoder with uncertainty (section 3.2).
    """
    error = (predicted - target).abs().sum(-1)
    return 2**0.5 * error / sigma + (2**0.5 * sigma).log()
