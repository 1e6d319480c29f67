"""A small decoder of latents to maps, in place of that of a point-map VAE from which it was distilled.

Most of the arithmetic of a published decoder happens at full resolution, in layers of 128 channels and a head for each
map. Here the width halves whenever the sides double, layers over time stand at the coarser sizes alone, and all maps
leave by one head.

Legend of shape letters: N frames of all clips, T frames per clip, C channels, h w latent size, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.layers import GroupNorm, silu, use_channels_last

MOST_FLOPS = 0.1
"""Share of its teacher's arithmetic that a light decoder may need, at 448x768 pixels."""


@dataclass(frozen=True)
class LightDecoderConfig:
    """Sizes.

    Attributes:
        latent_channels: channels of the latent.
        out_channels: of every map, in the order of the teacher's.
        widths: of every level, the coarsest (the latent's size) first; every level but the last doubles the sides.
            Multiples of ``groups``.
        blocks: residual blocks per level.
        over_time: let neighbouring frames see each other, at every level but the last, and once in the maps.
        groups: of the norms.
    """

    latent_channels: int = 4
    out_channels: tuple[int, ...] = (1, 1, 1)
    widths: tuple[int, ...] = (384, 192, 96, 48)
    blocks: int = 2
    over_time: bool = True
    groups: int = 8

    def __post_init__(self) -> None:
        if (
            not self.widths
            or self.blocks < 1
            or any(width < 1 or width % self.groups for width in self.widths)
        ):
            raise ValueError(
                f"expected widths that are multiples of {self.groups} and at least one block, got {self.widths} and "
                f"{self.blocks}"
            )


class _SpatialBlock(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(groups, channels), GroupNorm(groups, channels)
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Every frame by itself: two convolutions beside a skip."""
        hidden = self.conv1(silu(self.norm1(x)))
        return x + self.conv2(silu(self.norm2(hidden)))


class _FrameMixer(nn.Module):
    """A convolution over three frames beside a skip; begins as the skip alone."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "N C H W"], num_frames: int) -> Float[Tensor, "N C H W"]:
        """Clips of ``num_frames``; clips do not see each other."""
        return x + _mix(silu(self.norm(x)), self.conv, num_frames)


def _mix(x: Float[Tensor, "N C H W"], conv: nn.Conv2d, num_frames: int) -> Float[Tensor, "N c H W"]:
    """A (3, 1) convolution over (frame, pixel)."""
    height, width = x.shape[-2:]
    clips = (
        x.permute(0, 2, 3, 1)
        .reshape(len(x) // num_frames, num_frames, height * width, -1)
        .permute(0, 3, 1, 2)
    )
    return conv(clips).permute(0, 2, 3, 1).reshape(len(x), height, width, -1).permute(0, 3, 1, 2)


class _Level(nn.Module):
    """Blocks of one size, and the step to the next larger one."""

    def __init__(self, width: int, following: int | None, config: LightDecoderConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_SpatialBlock(width, config.groups) for _ in range(config.blocks))
        self.mixer = _FrameMixer(width, config.groups) if config.over_time and following else None
        self.narrow = nn.Conv2d(width, following, 1) if following else None

    def forward(
        self, x: Float[Tensor, "N C h w"], num_frames: int, at_once: int | None
    ) -> Float[Tensor, "N c H W"]:
        x = torch.cat([self._blocks(part) for part in x.split(at_once or len(x))])
        if self.mixer is not None:
            x = self.mixer(x, num_frames)
        if self.narrow is not None:
            x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        return x

    def _blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class LightDecoder(nn.Module):
    """Latents to maps; takes what its teacher takes and gives what it gives.

    Attributes:
        frames_at_once: frames that the layers without memory of time treat together; None: all. Changes the memory
            that is needed, not the result.
    """

    frames_at_once: int | None = None

    def __init__(self, config: LightDecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths, maps = config.widths, sum(config.out_channels)
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            _Level(width, following, config)
            for width, following in zip(widths, (*widths[1:], None), strict=True)
        )
        self.norm_out = GroupNorm(config.groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], maps, 3, padding=1)
        self.mix_out = None
        if config.over_time:
            self.mix_out = nn.Conv2d(maps, maps, (3, 1), padding=(1, 0), groups=maps)
            nn.init.zeros_(self.mix_out.weight)
            nn.init.ones_(self.mix_out.weight[:, :, 1])
            nn.init.zeros_(self.mix_out.bias)  # type: ignore[arg-type]

    def cast(self, dtype: torch.dtype) -> "LightDecoder":
        """Run in ``dtype``, in place; norms and the last layers stay float32."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and name not in ("conv_out", "mix_out"):
                module.to(dtype)
        use_channels_last(self)
        return self

    def forward(self, latent: Float[Tensor, "N c h w"], num_frames: int = 1) -> tuple[Tensor, ...]:
        """Decode clips of ``num_frames`` consecutive latents; clips do not see each other.

        Args:
            latent: not multiplied by the scaling factor.
            num_frames: frames per clip; divides N.
        Returns:
            [N, C, H, W] for each of ``config.out_channels``, float32.
        """
        at_once = self.frames_at_once
        x = self.conv_in(latent.to(self.conv_in.weight.dtype, memory_format=torch.channels_last))
        for level in self.levels:
            x = level(x, num_frames, at_once)
        parts = x.split(at_once or len(x))
        maps = torch.cat(
            [self.conv_out(silu(self.norm_out(part)).to(self.conv_out.weight.dtype)) for part in parts]
        )
        if self.mix_out is not None:
            maps = _mix(maps, self.mix_out, num_frames)
        return maps.split(self.config.out_channels, dim=1)


def count_flops(make: Callable[[], nn.Module], call: Callable[[Any], Any]) -> int:
    """Floating-point operations (a multiplication and an addition are two) of one call of a network.

    Nothing is computed: the network is made on the meta device, and torch's counter looks on.

    Args:
        make: makes the network.
        call: calls it, on tensors that it makes itself; the default device is the meta device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # Gradients are on: without them some blocks read a parameter's value, which a meta tensor has not.
    with torch.device("meta"), torch.enable_grad():
        network = make().to("meta")
        with FlopCounterMode(display=False) as counter:
            call(network)
    return int(counter.get_total_flops())
