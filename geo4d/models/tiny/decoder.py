"""Learned decoder of the latent: pictures with a pretrained encoder in, disparity, its spread and the sky out.

It runs at twice the size of the diffusion network: the encoder's features of every frame, joined at 1/16 by the latent
and at 1/4 by the linearly decoded disparity and the confident part of the evidence, attention over all frames at 1/32,
and a pyramid back to the size of the pictures. What it says is added to the linearly decoded disparity. Before training
it changes nothing and says the same spread everywhere.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.encoder import ENCODERS, Depthwise, PictureEncoder, Pointwise
from geo4d.models.tiny.modalities import NormalisedMaps
from geo4d.models.tiny.network import Evidence, SpaceTimeBlock, TemporalConv, recomputed, sinusoid

MIN_SIGMA = 1e-3
START_SIGMA = 0.15
FRAME_EMBEDDING = 32


@dataclass(frozen=True)
class DecodedMaps:
    """Finished maps with the sigma of their likelihood (see ``training.objectives``); normalised, channel first."""

    disparity: Float[Tensor, "B T 1 H W"]
    disparity_sigma: Float[Tensor, "B T 1 H W"]
    sky_logit: Float[Tensor, "B T 1 H W"]


class GuidedDecoder(nn.Module):
    """Linearly decoded maps, and pictures of twice their size -> finished maps of the pictures' size.

    Attributes:
        checkpointing: recompute activations in the backward pass.
        layout: memory format of the features.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        widths = config.decoder_widths
        self.encoder = PictureEncoder(ENCODERS[config.encoder])
        self.lateral = nn.ModuleList(
            nn.Sequential(Pointwise(given, width), nn.GroupNorm(8, width))
            for given, width in zip(self.encoder.config.channels, widths, strict=True)
        )
        self.up = nn.ModuleList(Pointwise(deep, w) for deep, w in zip(widths[1:], widths[:-1], strict=True))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(PyramidBlock(width) for _ in range(config.num_decoder_blocks)))
            for width in widths
        )
        # Four pixels of the disparity and three channels of evidence at 1/4.
        self.maps_in = nn.Conv2d(4 + 3, widths[1], 3, padding=1)
        self.latent_in = Pointwise(config.latent_channels, widths[3])
        self.frames = nn.ModuleList(
            SpaceTimeBlock(widths[4], config.num_heads, FRAME_EMBEDDING)
            for _ in range(config.num_frame_blocks)
        )
        self.steady = nn.ModuleList([TemporalConv(widths[2]), TemporalConv(widths[3])])
        self.norm_out = nn.GroupNorm(8, widths[0])
        self.out = nn.Conv2d(widths[0], 4 * 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.checkpointing = False
        self.layout = torch.channels_last

    def forward(
        self,
        maps: NormalisedMaps,
        latent: Float[Tensor, "B T C h w"],
        rgb: Float[Tensor, "B T 3 H W"],
        evidence: Evidence,
        frames: Float[Tensor, "B T"],
    ) -> DecodedMaps:
        """Finish the maps decoded from ``latent``.

        Args:
            maps: at half the size of ``rgb``.
            rgb: in [-1, 1]; sides that are multiples of 32.
            evidence: as the network saw it.
            frames: position of every frame, counted from the first of its window.
        """
        batch, num_frames = rgb.shape[:2]
        features = self.encoder(rgb.flatten(0, 1).contiguous(memory_format=self.layout))
        given = torch.cat(
            [F.pixel_unshuffle(maps.disparity.flatten(0, 1), 2), evidence.depth.flatten(0, 1)], 1
        )
        place = sinusoid(frames, FRAME_EMBEDDING, 64.0).flatten(0, 1)
        x = recomputed(self.checkpointing, self.blocks[4], self.lateral[4](features[4]))
        for block in self.frames:
            x = recomputed(self.checkpointing, block, x, place, num_frames)
        for level in (3, 2, 1, 0):
            raised = F.interpolate(self.up[level](x), features[level].shape[-2:], mode="bilinear")
            x = self.lateral[level](features[level]) + raised
            if level == 3:
                x = x + self.latent_in(latent.flatten(0, 1))
            if level == 1:
                x = x + self.maps_in(given.contiguous(memory_format=self.layout))
            x = recomputed(self.checkpointing, self.blocks[level], x)
            if level in (2, 3):
                x = self.steady[level - 2](x, num_frames)
        out = F.pixel_shuffle(self.out(F.silu(self.norm_out(x))).float(), 2).unflatten(0, (batch, num_frames))
        sigma = MIN_SIGMA + START_SIGMA * torch.exp(out[:, :, 1:2].clamp(-5, 3))
        return DecodedMaps(raised_disparity(maps) + out[:, :, :1], sigma, out[:, :, 2:3])


def raised_disparity(maps: NormalisedMaps) -> Float[Tensor, "B T 1 H W"]:
    """The linearly decoded disparity at the size of the pictures, twice its own."""
    batch = maps.disparity.shape[:2]
    return F.interpolate(maps.disparity.flatten(0, 1), scale_factor=2.0, mode="bilinear").unflatten(0, batch)


class PyramidBlock(nn.Module):
    """A kernel for each channel, then two layers for each pixel, added to the input."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels, 5, padding=2)
        self.norm = nn.GroupNorm(8, channels)
        self.expand = Pointwise(channels, channels * expansion)
        self.project = Pointwise(channels * expansion, channels)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """[N, C, H, W] -> the same shape."""
        return x + self.project(F.silu(self.expand(self.norm(self.depthwise(x)))))
