"""The files of Geo4D's authors in the form in which they publish them, for a network of a few channels."""

import torch
from torch import Tensor

from geo4d.models.geo4d.config import CLIPConfig, Geo4DConfig, ResamplerConfig, UNetConfig, VAEConfig
from geo4d.models.geo4d.weights import PublishedKey


def small() -> Geo4DConfig:
    """A few channels of everything; the tokens are as many as in the released one."""
    return Geo4DConfig(
        unet=UNetConfig(
            model_channels=32, channel_mult=(1, 1), num_res_blocks=1, num_head_channels=16, context_dim=16
        ),
        vae=VAEConfig(channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1),
        resampler=ResamplerConfig(16, 1, 8, 2, 16, 16, 20, 16),
        clip=CLIPConfig(16, 16, 2, 2, 77, 49408, 1, 20, 1, 20, 28),
    )


def state(table: dict[str, PublishedKey]) -> dict[str, Tensor]:
    """Drawn values under the authors' names."""
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(key.shape, generator=generator) for name, key in table.items()}
