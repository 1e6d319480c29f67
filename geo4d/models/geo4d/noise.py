"""The random numbers of one window, from seed and index alone."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.diffusion.samplers import gaussian_noise
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.options import WINDOW_LENGTH


@dataclass(frozen=True)
class WindowNoise:
    """All random numbers of one window, standard normal.

    Attributes:
        posterior: for the colour latent.
        first: the first latent.
        steps: what each step adds when eta > 0.
    """

    posterior: Float[Tensor, "T C h w"]
    first: Float[Tensor, "C2 T h w"]
    steps: Float[Tensor, "S C2 T h w"] | None = None


def draw_noise(
    seed: int,
    window_index: int,
    config: Geo4DConfig,
    size: tuple[int, int],
    *,
    num_frames: int = WINDOW_LENGTH,
    num_steps: int | None = None,
) -> WindowNoise:
    """All noise of a window, from seed and index alone, drawn on the CPU: the same on every device.

    Args:
        size: (height, width) of the pictures, multiples of the latents' downsampling.
        num_steps: of a sampler that adds noise at every step; None for one that adds none.
    """
    digest = hashlib.sha256(f"{seed}/{window_index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    factor = config.vae.downsampling
    height, width = size[0] // factor, size[1] // factor
    first_shape = (config.unet.out_channels, num_frames, height, width)
    posterior = gaussian_noise((num_frames, config.vae.latent_channels, height, width), generator, "cpu")
    first = gaussian_noise(first_shape, generator, "cpu")
    steps = None
    if num_steps is not None:
        steps = gaussian_noise((num_steps + 1, *first_shape), generator, "cpu")
    return WindowNoise(posterior, first, steps)
