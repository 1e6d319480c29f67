"""Disparity of a window from its pictures and the evidence, with its spread and the sky: a pretrained encoder, a pyramid.

The encoder's features of every frame meet attention over all frames at 1/32 of the pictures, then a pyramid brings them
back to their size; at 1/4 come what is known without them (the mean disparity of training scenes, pulled onto the
evidence) and the confident part of the evidence. What it says is added to what is known. Before training it changes
nothing and says the same spread everywhere.

The diffusion network has no part in it. A network of this form on top of that one's disparity was trained beside it and
was no better (``docs/decisions/second-model.md``); that one gives the point map and the rays.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geo4d.models.layers import silu
from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.encoder import ENCODERS, Depthwise, PictureEncoder, Pointwise
from geo4d.models.tiny.network import Evidence, SpaceTimeBlock, TemporalConv, recomputed, sinusoid

MIN_SIGMA = 1e-3
START_SIGMA = 0.15
FRAME_EMBEDDING = 32


@dataclass(frozen=True)
class DepthMaps:
    """Disparity with the sigma of its likelihood (see ``training.objectives``); normalised, channel first."""

    disparity: Float[Tensor, "B T 1 H W"]
    disparity_sigma: Float[Tensor, "B T 1 H W"]
    sky_logit: Float[Tensor, "B T 1 H W"]


class DepthNetwork(nn.Module):
    """Features of pictures and what is known at half their size -> disparity at their size.

    Attributes:
        checkpointing: recompute activations in the backward pass.
        layout: memory format of the features.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        widths = config.depth_widths
        self.encoder = PictureEncoder(ENCODERS[config.encoder])
        self.lateral = nn.ModuleList(
            nn.Sequential(Pointwise(given, width), nn.GroupNorm(8, width))
            for given, width in zip(self.encoder.config.channels, widths, strict=True)
        )
        self.up = nn.ModuleList(Pointwise(deep, w) for deep, w in zip(widths[1:], widths[:-1], strict=True))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(PyramidBlock(width) for _ in range(config.num_depth_blocks))) for width in widths
        )
        # Four pixels of what is known and three channels of evidence at 1/4.
        self.known_in = nn.Conv2d(4 + 3, widths[1], 3, padding=1)
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

    def features(self, rgb: Float[Tensor, "B T 3 H W"]) -> list[Tensor]:
        """The encoder's [N C h w] at 1/2 to 1/32; N counts the frames of all windows. No evidence changes them.

        Args:
            rgb: in [-1, 1]; sides that are multiples of 32.
        """
        return self.encoder(rgb.flatten(0, 1).contiguous(memory_format=self.layout))

    def forward(
        self,
        features: list[Tensor],
        known: Float[Tensor, "B T 1 h w"],
        evidence: Evidence,
        frames: Float[Tensor, "B T"],
    ) -> DepthMaps:
        """Disparity, spread and sky.

        Args:
            features: of the pictures, see ``features``.
            known: disparity to start from, normalised, at half the size of the pictures.
            evidence: encoded for half the size of the pictures; its depth channels are read.
            frames: position of every frame, counted from the first of its window.
        """
        batch, num_frames = known.shape[:2]
        given = torch.cat([F.pixel_unshuffle(known.flatten(0, 1), 2), evidence.depth.flatten(0, 1)], 1)
        place = sinusoid(frames, FRAME_EMBEDDING, 64.0).flatten(0, 1)
        x = recomputed(self.checkpointing, self.blocks[4], self.lateral[4](features[4]))
        for block in self.frames:
            x = recomputed(self.checkpointing, block, x, place, num_frames)
        for level in (3, 2, 1, 0):
            raised = F.interpolate(self.up[level](x), features[level].shape[-2:], mode="bilinear")
            x = self.lateral[level](features[level]) + raised
            if level == 1:
                x = x + self.known_in(given.contiguous(memory_format=self.layout))
            x = recomputed(self.checkpointing, self.blocks[level], x)
            if level in (2, 3):
                x = self.steady[level - 2](x, num_frames)
        out = F.pixel_shuffle(self.out(silu(self.norm_out(x))).float(), 2).unflatten(0, (batch, num_frames))
        sigma = MIN_SIGMA + START_SIGMA * torch.exp(out[:, :, 1:2].clamp(-5, 3))
        return DepthMaps(doubled(known) + out[:, :, :1], sigma, out[:, :, 2:3])


def doubled(maps: Float[Tensor, "B T 1 h w"]) -> Float[Tensor, "B T 1 H W"]:
    """Maps at twice their size."""
    raised = F.interpolate(maps.flatten(0, 1), scale_factor=2.0, mode="bilinear")
    return raised.unflatten(0, maps.shape[:2])


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
        return x + self.project(silu(self.expand(self.norm(self.depthwise(x)))))
