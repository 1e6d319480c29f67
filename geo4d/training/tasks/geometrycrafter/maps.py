"""True geometry to the maps that the networks see, through the code that normalises the prior at inference.

Legend of shape letters: T frames, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.cameras import unproject
from geo4d.models.geometrycrafter.decode import DecodedMaps
from geo4d.models.geometrycrafter.prior_maps import condition_prior, frame_records, merge_statistics


@dataclass(frozen=True)
class NormalisedWindow:
    """Maps of the frames of one window, divided by their mean depth.

    Attributes:
        encoder_input: theta, log depth, disparity in [-1, 1], mask as -1 or 1.
        valid: where there is a surface.
        scale: what depths were divided by.
    """

    encoder_input: Float[Tensor, "T 4 H W"]
    valid: Bool[Tensor, "T H W"]
    scale: float

    def part(self, frames: slice) -> "NormalisedWindow":
        """Some of the frames, normalised as they are here."""
        return NormalisedWindow(self.encoder_input[frames], self.valid[frames], self.scale)

    @property
    def maps(self) -> DecodedMaps:
        """What a perfect decoder would answer."""
        return DecodedMaps(self.encoder_input[:, 0], self.encoder_input[:, 1], self.encoder_input[:, 3])

    @property
    def picture(self) -> Float[Tensor, "T 3 H W"]:
        """The disparity picture of the image encoder."""
        return self.encoder_input[:, 2:3].expand(-1, 3, -1, -1)


def normalise_window(depth: Float[Tensor, "T H W"], intrinsics: Float[Tensor, "T 3 3"]) -> NormalisedWindow:
    """Normalise true (or prior) depth with the statistics of its window.

    Args:
        depth: z-depth; what is not finite and positive (unknown, sky) is not valid.
        intrinsics: in pixels of the maps, centres at +0.5. The representation has one number for the field of view and
            the centre in the middle, so an offset of the principal point is lost.
    """
    valid = torch.isfinite(depth) & (depth > 0)
    points = unproject(torch.where(valid, depth, 1.0), intrinsics)
    statistics = merge_statistics(frame_records(points, valid))
    conditioning = condition_prior(points, valid, statistics)
    size = (depth.shape[1], depth.shape[2])
    return NormalisedWindow(conditioning.encoder_input(size), valid, statistics.scale)


def frames_seen(sample: int, num_frames: int, seen: int | None) -> slice:
    """Which frames of a window pass through the networks: ``seen`` consecutive ones, drawn by the sample's number.

    Args:
        seen: None, or as many as there are, or more: all.
    """
    if seen is None or seen >= num_frames:
        return slice(0, num_frames)
    first = int(np.random.default_rng((53, sample)).integers(num_frames - seen + 1))
    return slice(first, first + seen)
