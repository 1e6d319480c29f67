"""Samplers over a discrete schedule. They see ``denoise(x, timestep) -> x0`` and know no network."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.diffusion.denoiser import Denoise
from geo4d.diffusion.schedules import DdimTable


def iter_ddim(
    denoise: Denoise,
    x: Float[Tensor, "B ..."],
    table: DdimTable,
    noise: Callable[[int], Tensor] | None = None,
) -> Iterator[tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]]:
    """DDIM from pure noise, one step at a time, in float32.

    Args:
        denoise: estimate of the clean latent.
        x: the first latent, standard normal.
        table: visited timesteps and their factors.
        noise: ``noise(k)`` gives the standard normal noise that step k adds; needed where ``table.sigmas`` >
            0.
    Yields:
        after each step the new latent, and the estimate of the clean latent it was made from (after the
        dynamic rescale).
    Raises:
        ValueError: the table adds noise and ``noise`` is None.
    Source: Song et al., "Denoising Diffusion Implicit Models", Eq. (12).
    """
    if noise is None and bool((table.sigmas > 0).any()):
        raise ValueError("expected a source of step noise for eta > 0, got none")
    x = x.float()
    alphas, alphas_prev, sigmas = table.alphas.double(), table.alphas_prev.double(), table.sigmas.double()
    for step, index in enumerate(reversed(range(len(table.timesteps)))):
        timestep = table.timesteps[index].to(x.device).expand(x.shape[0])
        x0 = denoise(x, timestep)
        alpha, alpha_prev, sigma = alphas[index], alphas_prev[index], sigmas[index]
        # The noise that, with x0, makes up x. 1 - alpha > 0 at every timestep of a trained schedule.
        direction = (x - alpha.sqrt().item() * x0) / (1 - alpha).sqrt().item()
        x0 = x0 * (table.scale_prev[index] / table.scale[index]).item()
        spread = (1 - alpha_prev - sigma**2).clamp(min=0).sqrt().item()
        x = alpha_prev.sqrt().item() * x0 + spread * direction
        if sigma > 0 and noise is not None:
            x = x + sigma.item() * noise(step).to(x)
        yield x, x0


def sample_ddim(
    denoise: Denoise,
    x: Float[Tensor, "B ..."],
    table: DdimTable,
    noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "B ..."]:
    """Run :func:`iter_ddim` to the end and return the last latent.

    Args:
        on_step: called with the step's index and the new latent.
    """
    for step, (latent, _) in enumerate(iter_ddim(denoise, x, table, noise)):
        x = latent
        if on_step is not None:
            on_step(step, x)
    return x


def gaussian_noise(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str
) -> Float[Tensor, "..."]:
    """Standard normal noise drawn on the generator's device, then moved: the same on every machine for a CPU
    one.
    """
    return torch.randn(shape, generator=generator, device=generator.device).to(device)
