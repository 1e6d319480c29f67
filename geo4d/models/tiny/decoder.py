"""Learned finish of the fixed codec: source edges, predicted spread, and the sky.

It sees the linearly decoded maps, the pictures, the confident part of the evidence and the latent, and adds a
correction. Before training it changes nothing and says the same spread everywhere.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.modalities import NormalisedMaps
from geo4d.models.tiny.network import Evidence, ResidualBlock, recomputed

MIN_SIGMA = 1e-3
START_SIGMA = 0.15


@dataclass(frozen=True)
class DecodedMaps:
    """Finished maps with the sigma of their likelihood (see ``training.objectives``); normalised, channel first."""

    disparity: Float[Tensor, "B T 1 H W"]
    points: Float[Tensor, "B T 3 H W"]
    disparity_sigma: Float[Tensor, "B T 1 H W"]
    point_sigma: Float[Tensor, "B T 1 H W"]
    sky_logit: Float[Tensor, "B T 1 H W"]


class GuidedDecoder(nn.Module):
    """Linearly decoded maps -> finished maps."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width = config.decoder_width
        # Pictures, disparity, points (10 channels with evidence at half size added apart).
        self.pixels_in = nn.Conv2d(4 * (3 + 1 + 3), width, 3, padding=1)
        self.evidence_in = nn.Conv2d(3, width, 3, padding=1)
        self.latent_in = nn.Conv2d(config.latent_channels, width, 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, width) for _ in range(config.num_decoder_blocks))
        self.out = nn.Conv2d(width, 4 * 7, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.checkpointing = False

    def forward(
        self,
        maps: NormalisedMaps,
        latent: Float[Tensor, "B T C h w"],
        rgb: Float[Tensor, "B T 3 H W"],
        evidence: Evidence,
    ) -> DecodedMaps:
        """Finish the maps decoded from ``latent``."""
        batch, num_frames = rgb.shape[:2]
        pixels = torch.cat([rgb, maps.disparity, maps.points], dim=2).flatten(0, 1)
        x = self.pixels_in(F.pixel_unshuffle(pixels, 2).contiguous(memory_format=torch.channels_last))
        x = x + self.evidence_in(evidence.depth.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        x = x + F.interpolate(
            self.latent_in(latent.flatten(0, 1)), scale_factor=4.0, mode="bilinear", align_corners=False
        )
        for block in self.blocks:
            x = recomputed(self.checkpointing, block, x)
        out = F.pixel_shuffle(self.out(x).float(), 2).unflatten(0, (batch, num_frames))
        sigma = MIN_SIGMA + START_SIGMA * torch.exp(out[:, :, 4:6].clamp(-5, 3))
        sky = out[:, :, 6:7]
        return DecodedMaps(
            maps.disparity + out[:, :, 0:1],
            maps.points + out[:, :, 1:4],
            sigma[:, :, :1],
            sigma[:, :, 1:],
            sky,
        )
