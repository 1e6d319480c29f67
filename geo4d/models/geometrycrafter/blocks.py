"""Space-time blocks of the point-map decoder, laid out for speed.

The network and its parameter names are those of diffusers' temporal decoder. What differs is how it runs: features stay
channels-last from the first to the last layer, and a temporal layer is a 2-D convolution over (frame, pixel) on a view
of the same memory, so nothing is copied between space and time. See ``docs/decisions/geometrycrafter-decoder.md``.

Legend of shape letters: N frames of all clips, T frames per clip, C channels, H W size of the features.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GROUPS = 32


def normalise(
    x: Float[Tensor, "N C H W"], norm: nn.GroupNorm, activation: bool = True
) -> Float[Tensor, "N C H W"]:
    """Group norm (statistics in float32), then SiLU."""
    weight: Tensor = norm.weight
    bias: Tensor = norm.bias
    if x.dtype != weight.dtype and x.device.type != "cpu":
        # The CPU kernel mixes types; elsewhere the two small vectors follow the features.
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    out = F.group_norm(x, norm.num_groups, weight, bias, norm.eps)
    if not activation:
        return out
    return F.silu(out, inplace=not torch.is_grad_enabled())


def over_time(x: Float[Tensor, "N C H W"], num_frames: int) -> Float[Tensor, "B C T pixels"]:
    """A clip as a picture of (frame, pixel), a view of the same channels-last memory."""
    clips = x.permute(0, 2, 3, 1).reshape(x.shape[0] // num_frames, num_frames, -1, x.shape[1])
    return clips.permute(0, 3, 1, 2)


def time_conv(x: Float[Tensor, "B C T pixels"], conv: nn.Conv3d) -> Float[Tensor, "B c T pixels"]:
    """A (3, 1, 1) convolution of clips that are laid out by ``over_time``."""
    if x.shape[2] == 1:  # both neighbours are padding
        return F.conv2d(x, conv.weight[:, :, 1, :, :], conv.bias)
    return F.conv2d(x, conv.weight[..., 0], conv.bias, padding=(1, 0))


def in_parts(
    layer: nn.Module, x: Float[Tensor, "N C H W"], at_once: int | None
) -> Float[Tensor, "N c H2 W2"]:
    """``layer(x)`` of a layer that treats every frame by itself, ``at_once`` frames at a time: less memory."""
    if at_once is None or len(x) <= at_once:
        return layer(x)
    return torch.cat([layer(part) for part in x.split(at_once)])


class SpatialBlock(nn.Module):
    """Two convolutions over space beside a skip, without a timestep."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N c H W"]:
        """Every frame by itself."""
        hidden = self.conv1(normalise(x, self.norm1))
        hidden = self.conv2(normalise(hidden, self.norm2))
        return hidden + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class TemporalBlock(nn.Module):
    """Two convolutions over time; the skip is the caller's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels, eps=1e-5)
        self.conv1 = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        self.norm2 = nn.GroupNorm(GROUPS, channels, eps=1e-5)
        self.conv2 = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Float[Tensor, "B C T pixels"]) -> Float[Tensor, "B C T pixels"]:
        """What the block adds to ``x``."""
        hidden = time_conv(normalise(x, self.norm1), self.conv1)
        return time_conv(normalise(hidden, self.norm2), self.conv2)


class Mixer(nn.Module):
    """Learned share of the temporal branch."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))
        self._known: tuple[Tensor, int, float] | None = None  # parameter, its version, the share

    def share(self) -> float:
        """The share as a number. An accelerator is asked once: the host would wait for it in every block and chunk."""
        factor: Tensor = self.mix_factor
        if factor.device.type == "cpu":
            return float(torch.sigmoid(factor.float()))
        if self._known is None or self._known[0] is not factor or self._known[1] != factor._version:
            self._known = factor, factor._version, float(torch.sigmoid(factor.float()))
        return self._known[2]


class SpaceTimeBlock(nn.Module):
    """A spatial block, then a temporal one mixed in with a learned share."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.spatial_res_block = SpatialBlock(in_channels, out_channels)
        self.temporal_res_block = TemporalBlock(out_channels)
        self.time_mixer = Mixer()

    def forward(
        self, x: Float[Tensor, "N C H W"], num_frames: int, at_once: int | None = None
    ) -> Float[Tensor, "N c H W"]:
        """The block over space, and a learned share of what the block over time adds.

        Args:
            at_once: frames that the part over space takes together; None takes all.
        """
        spatial = in_parts(self.spatial_res_block, x, at_once)
        added = self.temporal_res_block(over_time(spatial, num_frames))
        # (1 - a) * spatial + a * (spatial + added), written with one pass over the features.
        share = None if torch.is_grad_enabled() else self.time_mixer.share()
        frames = added.permute(0, 2, 3, 1).reshape(spatial.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        if share is not None:
            return spatial.add_(frames, alpha=share)
        return spatial + torch.sigmoid(self.time_mixer.mix_factor).to(frames.dtype) * frames


class Attention(nn.Module):
    """Self-attention of one head over all pixels of a frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Attention with one head among all pixels of a frame, beside a skip."""
        tokens = normalise(x, self.group_norm, activation=False).flatten(2).transpose(1, 2)
        query, key, value = (project(tokens)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        out = self.to_out[0](F.scaled_dot_product_attention(query, key, value)[:, 0])
        return x + out.transpose(1, 2).unflatten(2, tuple(x.shape[-2:]))


class MidBlock(nn.Module):
    """Blocks over space and time with one attention between the first two."""

    def __init__(self, channels: int, num_layers: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels)])
        self.resnets = nn.ModuleList(SpaceTimeBlock(channels, channels) for _ in range(num_layers))

    def forward(
        self, x: Float[Tensor, "N C H W"], num_frames: int, at_once: int | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Sizes stay; ``at_once`` as in ``SpaceTimeBlock``."""
        x = self.resnets[0](x, num_frames, at_once)
        # One attention whatever the depth: the published block pairs layers and attentions until one runs out.
        for block, attention in zip(list(self.resnets)[1:], self.attentions, strict=False):
            x = block(in_parts(attention, x, at_once), num_frames, at_once)
        return x


class Upsampler(nn.Module):
    """Twice the height and width by nearest neighbours, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H2 W2"]:
        """Every frame by itself."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UpBlock(nn.Module):
    """Blocks over space and time of one size, then the step to the next larger one."""

    def __init__(self, in_channels: int, out_channels: int, num_layers: int, upsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            SpaceTimeBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(num_layers)
        )
        if upsample:
            self.upsamplers = nn.ModuleList([Upsampler(out_channels)])

    def forward(
        self, x: Float[Tensor, "N C H W"], num_frames: int, at_once: int | None = None
    ) -> Float[Tensor, "N c H2 W2"]:
        """``at_once`` as in ``SpaceTimeBlock``; sizes stay in a block without an upsampler."""
        for block in self.resnets:
            x = block(x, num_frames, at_once)
        return in_parts(self.upsamplers[0], x, at_once) if hasattr(self, "upsamplers") else x
