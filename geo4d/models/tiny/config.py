"""Sizes of the bundled model and where each modality lies in its latent."""

from dataclasses import dataclass
from typing import Literal

Modality = Literal["disparity", "points", "rays"]
MODALITIES: tuple[Modality, ...] = ("disparity", "points", "rays")

BLOCK = 8
"""Pixels along one side of a latent cell."""

SIZE_MULTIPLE = 16
"""Heights and widths that the diffusion network takes are multiples of this (two latent cells)."""

PICTURE_MULTIPLE = 2 * SIZE_MULTIPLE
"""The same for the pictures and the finished maps: twice the diffusion network's size."""


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the network.

    Attributes:
        disparity_channels: latent numbers per 8x8 block of disparity.
        point_channels: the same for the point map.
        ray_channels: direction and moment of one ray per block; always 6.
        stem_width: channels of the image stem at 1/4 of the size.
        width: channels at 1/8 of the size.
        inner_width: channels at 1/16 of the size.
        num_inner_blocks: pairs of residual block and space-time transformer block at 1/16.
        num_outer_blocks: residual blocks at 1/8 before and after the inner part, each.
        num_heads: attention heads.
        embedding_width: channels of the embedding of timestep and frame.
        encoder: of the pictures, by name (``encoder.ENCODERS``).
        depth_widths: channels of the depth network at 1/2, 1/4, 1/8, 1/16 and 1/32 of the pictures.
        num_depth_blocks: its blocks at each of them.
        num_frame_blocks: its blocks of attention over all frames, at 1/32.
    """

    disparity_channels: int = 8
    point_channels: int = 8
    ray_channels: int = 6
    stem_width: int = 64
    width: int = 128
    inner_width: int = 256
    num_inner_blocks: int = 2
    num_outer_blocks: int = 2
    num_heads: int = 4
    embedding_width: int = 128
    encoder: str = "lite0"
    depth_widths: tuple[int, ...] = (24, 48, 80, 128, 192)
    num_depth_blocks: int = 2
    num_frame_blocks: int = 2

    def __post_init__(self) -> None:
        if self.ray_channels != 6:
            raise ValueError(f"expected 6 ray channels (direction, moment), got {self.ray_channels}")
        if self.inner_width % self.num_heads:
            raise ValueError(f"expected inner_width divisible by {self.num_heads}, got {self.inner_width}")

    @property
    def latent_channels(self) -> int:
        """Channels of a latent: disparity, points and rays."""
        return self.disparity_channels + self.point_channels + self.ray_channels

    def channels(self, modality: Modality) -> slice:
        """Latent channels of one modality."""
        first = {
            "disparity": 0,
            "points": self.disparity_channels,
            "rays": self.disparity_channels + self.point_channels,
        }[modality]
        count = {"disparity": self.disparity_channels, "points": self.point_channels, "rays": 6}[modality]
        return slice(first, first + count)


def tiny_preset() -> TinyConfig:
    """The bundled size."""
    return TinyConfig()


def smallest_preset() -> TinyConfig:
    """A size for tests: the same parts, a few thousand parameters."""
    return TinyConfig(
        stem_width=8, width=8, inner_width=16, num_inner_blocks=1, num_outer_blocks=1, num_heads=2,
        embedding_width=16, encoder="smallest", depth_widths=(8, 8, 8, 8, 8), num_depth_blocks=1, num_frame_blocks=1,
    )  # fmt: skip
