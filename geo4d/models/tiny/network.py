"""Small video network that predicts v of the latent from noisy latent, pictures and evidence.

Two resolutions, 1/8 (convolutions) and 1/16 (convolutions and attention over all places of all frames). Shapes:
B windows, T frames, C channels, H W pixels, h w latent cells; frames are folded into the batch as (B T) inside.
Attention is written out as matrix products: at these sizes that is several times faster on a CPU than the fused
kernel, and the same elsewhere.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from geo4d.models.layers import silu
from geo4d.models.tiny.config import TinyConfig

DEPTH_EVIDENCE_CHANNELS = 3
CAMERA_EVIDENCE_CHANNELS = 8


@dataclass(frozen=True)
class Evidence:
    """Evidence from motion as the network reads it; all zero where there is none. Made by ``conditioning.py``.

    Attributes:
        depth: disparity relative to its top, log disparity relative to its median, and confidence, at 1/2 size; the
            first two are zero where the confidence is.
        cameras: ray direction and moment in the frame of the first camera, trust in the rotation, trust in the
            translation, one per latent cell.
        error: mean spread of the logarithm of each frame's disparity as the evidence itself states it, or None; not read
            by the network.
        moving: probability that a pixel of ``depth`` shows something moving, or None; not read by the network.
    """

    depth: Float[Tensor, "B T 3 h2 w2"]
    cameras: Float[Tensor, "B T 8 h w"]
    error: Float[Tensor, "B T"] | None = None
    moving: Float[Tensor, "B T h2 w2"] | None = None

    def to(self, device: torch.device | str) -> "Evidence":
        """The same on another device."""
        error = None if self.error is None else self.error.to(device)
        moving = None if self.moving is None else self.moving.to(device)
        return Evidence(self.depth.to(device), self.cameras.to(device), error, moving)


class TinyUNet(nn.Module):
    """v of the latent. ``encode_condition`` once per window, ``forward`` once per step."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        width, inner, stem = config.width, config.inner_width, config.stem_width
        self.stem_in = nn.Conv2d(3 * 16, stem, 3, padding=1)
        self.stem_block = ResidualBlock(stem, stem)
        self.stem_out = nn.Conv2d(stem, width, 3, stride=2, padding=1)
        self.depth_in = nn.Conv2d(DEPTH_EVIDENCE_CHANNELS * 16, width, 3, padding=1)
        self.camera_in = nn.Conv2d(CAMERA_EVIDENCE_CHANNELS, width, 1)
        self.place_in = nn.Conv2d(8, width, 1)
        self.condition_block = ResidualBlock(width, width)

        self.latent_in = nn.Conv2d(config.latent_channels, width, 1)
        embedding = config.embedding_width
        self.embed = nn.Sequential(
            nn.Linear(3 * embedding // 2 + 1, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.outer_down = nn.ModuleList(
            ResidualBlock(width, width, embedding) for _ in range(config.num_outer_blocks)
        )
        self.down_mix = TemporalConv(width)
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.inner_convs = nn.ModuleList(
            ResidualBlock(inner, inner, embedding) for _ in range(config.num_inner_blocks)
        )
        self.inner_transformers = nn.ModuleList(
            SpaceTimeBlock(inner, config.num_heads, embedding) for _ in range(config.num_inner_blocks)
        )
        self.up = nn.Conv2d(inner, 4 * width, 1)
        self.outer_up = nn.ModuleList(
            ResidualBlock(2 * width if index == 0 else width, width, embedding)
            for index in range(config.num_outer_blocks)
        )
        self.up_mix = TemporalConv(width)
        self.norm_out = _norm(width)
        self.latent_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.latent_out.weight)
        nn.init.zeros_(self.latent_out.bias)  # type: ignore[arg-type]
        self.checkpointing = False

    def encode_condition(
        self, rgb: Float[Tensor, "B T 3 H W"], evidence: Evidence
    ) -> Float[Tensor, "BT C h w"]:
        """Features of the pictures (values in [-1, 1]) and of the evidence."""
        x = F.pixel_unshuffle(rgb.flatten(0, 1), 4).contiguous(memory_format=torch.channels_last)
        x = self.stem_out(self.stem_block(self.stem_in(x)))
        depth = F.pixel_unshuffle(evidence.depth.flatten(0, 1), 4)
        x = x + self.depth_in(depth.contiguous(memory_format=torch.channels_last))
        x = x + self.camera_in(evidence.cameras.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        x = x + self.place_in(_places(x.shape[-2], x.shape[-1], x))
        return self.condition_block(x)

    def forward(
        self,
        latent: Float[Tensor, "B T C h w"],
        timestep: Int[Tensor, " B"],
        condition: Float[Tensor, "BT D h w"],
        frames: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T C h w"]:
        """v of the noisy latent.

        Args:
            latent: noisy latent.
            timestep: in [0, 1000).
            condition: what ``encode_condition`` gave.
            frames: position of every frame, counted from the first of its window.
        """
        batch, num_frames = latent.shape[:2]
        x = latent.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.latent_in(x) + condition
        embedding = self._embedding(timestep, frames).flatten(0, 1)
        for block in self.outer_down:
            x = recomputed(self.checkpointing, block, x, embedding)
        x = self.down_mix(x, num_frames)
        skip = x
        x = self.down(x)
        for conv, transformer in zip(self.inner_convs, self.inner_transformers, strict=True):
            x = recomputed(self.checkpointing, conv, x, embedding)
            x = recomputed(self.checkpointing, transformer, x, embedding, num_frames)
        x = F.pixel_shuffle(self.up(x), 2).contiguous(memory_format=torch.channels_last)
        x = torch.cat([x, skip], dim=1)
        for block in self.outer_up:
            x = recomputed(self.checkpointing, block, x, embedding)
        x = self.up_mix(x, num_frames)
        v = self.latent_out(silu(self.norm_out(x)))
        return v.float().unflatten(0, (batch, num_frames))

    def _embedding(self, timestep: Tensor, frames: Tensor) -> Float[Tensor, "B T E"]:
        half = self.config.embedding_width // 2
        noise = sinusoid(timestep.float()[:, None].expand_as(frames), 2 * half, 1e4)
        place = sinusoid(frames, half, 64.0)
        return self.embed(torch.cat([noise, place, (frames == 0).to(noise)[..., None]], dim=-1))


def recomputed(enabled: bool, module: nn.Module, *arguments: Any) -> Tensor:
    """``module(*arguments)``; if ``enabled`` its activations are recomputed in the backward pass, not kept."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(module, *arguments, use_reentrant=False)
    return module(*arguments)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


def sinusoid(position: Tensor, channels: int, longest: float) -> Tensor:
    """Cosines and sines of a position at ``channels / 2`` wavelengths up to ``longest``; [...] -> [..., channels]."""
    half = channels // 2
    rates = torch.exp(-math.log(longest) / half * torch.arange(half, device=position.device))
    phase = position[..., None].float() * rates
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def _places(height: int, width: int, like: Tensor) -> Float[Tensor, "1 8 h w"]:
    """Where in the picture a cell lies, from -1 to 1, at two frequencies; the same for any size."""
    y = (torch.arange(height, device=like.device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=like.device) + 0.5) / width * 2 - 1
    rows, cols = torch.meshgrid(y, x, indexing="ij")
    parts = [rows, cols, rows**2, cols**2]
    parts += [wave(math.pi * axis) for axis in (rows, cols) for wave in (torch.sin, torch.cos)]
    return torch.stack(parts)[None].to(like.dtype).contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice; the embedding scales and shifts in between. Starts as the identity."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int = 0) -> None:
        super().__init__()
        self.norm_in = _norm(channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm_out = _norm(channels_out)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        self.modulate = nn.Linear(embedding, 2 * channels_out) if embedding else None
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """[N, C, H, W] -> [N, c, H, W].

        Args:
            embedding: [N, D] of the timestep, which scales and shifts the features; None leaves them.
        """
        y = self.norm_out(self.conv_in(silu(self.norm_in(x))))
        if self.modulate is not None and embedding is not None:
            scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + shift
        return (x if self.skip is None else self.skip(x)) + self.conv_out(silu(y))


class TemporalConv(nn.Module):
    """Each place sees its neighbours in the frames before and after. Starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """A convolution over the frames at each pixel, beside a skip; [N, C, H, W], N = windows x ``num_frames``."""
        frames, channels, height, width = x.shape
        y = silu(self.norm(x)).permute(0, 2, 3, 1)
        y = y.reshape(-1, num_frames, height * width, channels).permute(0, 3, 1, 2)
        y = self.conv(y).permute(0, 2, 3, 1).reshape(frames, height, width, channels)
        return x + y.permute(0, 3, 1, 2)


class SpaceTimeBlock(nn.Module):
    """Attention over all places of all frames, then a feed-forward layer; pre-norm."""

    def __init__(self, channels: int, num_heads: int, embedding: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.place = nn.Conv2d(8, channels, 1)
        self.frame = nn.Linear(embedding, channels)
        self.norm_attention = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.attention_out = nn.Linear(channels, channels)
        self.norm_feed = nn.LayerNorm(channels)
        self.feed_in = nn.Linear(channels, 4 * channels)
        self.feed_out = nn.Linear(4 * channels, channels)
        for layer in (self.attention_out, self.feed_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        """Attention among all pixels of all frames of a window, then feed-forward, each beside a skip; [N, C, H, W].

        Args:
            embedding: [N, D] of the place of each frame.
        """
        frames, channels, height, width = x.shape
        where = self.place(_places(height, width, x)) + self.frame(embedding)[:, :, None, None]
        tokens = x.permute(0, 2, 3, 1).reshape(-1, num_frames * height * width, channels)
        where = where.permute(0, 2, 3, 1).reshape(tokens.shape)
        tokens = tokens + self._attend(self.norm_attention(tokens + where))
        tokens = tokens + self.feed_out(silu(self.feed_in(self.norm_feed(tokens))))
        return tokens.reshape(frames, height, width, channels).permute(0, 3, 1, 2)

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, count, channels = tokens.shape
        heads = self.qkv(tokens).view(batch, count, 3, self.num_heads, channels // self.num_heads)
        q, k, v = (part.contiguous() for part in heads.permute(2, 0, 3, 1, 4))
        weight = ((q * (channels // self.num_heads) ** -0.5) @ k.mT).softmax(-1)
        mixed = (weight.to(v.dtype) @ v).transpose(1, 2).reshape(batch, count, channels)
        return self.attention_out(mixed)
