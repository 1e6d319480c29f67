"""Stacks of convolutions over a pyramid of feature maps, of which MoGe-2's neck and heads are made.

Legend of shape letters: B pictures, C channels, h w the size at a level; every level is twice as large as the one before.
Module names are those of the published checkpoints.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.layers import GroupNorm
from geo4d.models.moge.config import StackConfig

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}


def _conv3x3(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1, padding_mode="replicate")


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return GroupNorm(1 if kind == "layer_norm" else channels // 32, channels)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with activations, and norms where there are any, before them; beside a skip."""

    def __init__(self, channels: int, config: StackConfig) -> None:
        super().__init__()
        hidden, activation = config.dim_times_res_block_hidden * channels, _ACTIVATIONS[config.activation]
        self.layers = nn.Sequential(
            _norm(config.res_block_in_norm, channels),
            activation(),
            _conv3x3(channels, hidden),
            _norm(config.res_block_hidden_norm, hidden),
            activation(),
            _conv3x3(hidden, channels),
        )

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Channels and sizes stay."""
        return x + self.layers(x)


def _doubled(inside: int, outside: int, kind: str) -> nn.Sequential:
    """Twice the size."""
    if kind == "conv_transpose":
        return nn.Sequential(nn.ConvTranspose2d(inside, outside, 2, stride=2), _conv3x3(outside, outside))
    if kind == "pixel_shuffle":
        return nn.Sequential(_conv3x3(inside, 4 * outside), nn.PixelShuffle(2), _conv3x3(outside, outside))
    corners = False if kind == "bilinear" else None
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=kind, align_corners=corners), _conv3x3(inside, outside)
    )


def _projected(inside: int | None, outside: int | None) -> nn.Module:
    return nn.Identity() if inside is None or outside is None else nn.Conv2d(inside, outside, 1)


class ConvStack(nn.Module):
    """From coarse to fine: each level adds its input to what comes from the level before, enlarged."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        widths = config.dim_res_blocks
        self.input_blocks = nn.ModuleList(
            _projected(d, w) for d, w in zip(config.dim_in, widths, strict=True)
        )
        self.resamplers = nn.ModuleList(
            _doubled(a, b, kind) for a, b, kind in zip(widths, widths[1:], config.resamplers, strict=False)
        )
        self.res_blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(w, config) for _ in range(count)))
            for w, count in zip(widths, config.num_res_blocks, strict=True)
        )
        self.output_blocks = nn.ModuleList(
            _projected(w, d) for w, d in zip(widths, config.dim_out, strict=True)
        )

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ _ _"]]:
        """The output of every level.

        Args:
            features: one map per level.
        """
        found: list[Tensor] = []
        x = self.input_blocks[0](features[0])
        for level, blocks in enumerate(self.res_blocks):
            if level > 0:
                x = self.resamplers[level - 1](x) + self.input_blocks[level](features[level])
            x = blocks(x)
            found.append(self.output_blocks[level](x))
        return found
