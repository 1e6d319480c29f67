"""What points and panes of the viewer are coloured by, and the legend that says so."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8

from geo4d.formats.ramps import confidence_to_colours, depth_to_colours, disparity_range, ramp, to_uint8
from geo4d.types import Reconstruction
from geo4d.viewer.strips import colour_bar, most_shown

ColourBy = Literal["picture", "depth", "confidence", "moving"]

_GREY = (150, 150, 150)


class Colouring:
    """Colours of the maps of one scene, the same for all of its frames.

    Attributes:
        choices: what this reconstruction can be coloured by.
    """

    def __init__(self, reconstruction: Reconstruction, frames: Sequence[int]) -> None:
        """
        Args:
            frames: that the ends of the ramps are taken from.
        """
        self._of = reconstruction
        depth = np.stack([np.asarray(reconstruction.depth[t], np.float32) for t in frames])
        confidence = np.stack([np.asarray(reconstruction.confidence[t], np.float32) for t in frames])
        self._limits = disparity_range(depth)
        self.certain = np.sort(confidence[np.isfinite(depth)])
        self._most = most_shown(self.certain)
        missing = {
            name
            for name, maps in (("picture", reconstruction.rgb), ("moving", reconstruction.dynamic))
            if maps is None
        }
        self.choices: tuple[ColourBy, ...] = tuple(name for name in get_args(ColourBy) if name not in missing)

    def picture(self, frame: int, by: ColourBy) -> UInt8[np.ndarray, "H W 3"]:
        """The frame, coloured.

        Raises:
            ValueError: the reconstruction has no such map.
        """
        if by not in self.choices:
            raise ValueError(f"expected a colour out of {', '.join(self.choices)}, got {by}")
        of = self._of
        if by == "depth":
            return depth_to_colours(np.asarray(of.depth[frame], np.float32), self._limits)
        if by == "confidence":
            return confidence_to_colours(np.asarray(of.confidence[frame], np.float32) / self._most)
        if by == "moving":
            assert of.dynamic is not None
            return ramp(np.asarray(of.dynamic[frame], np.float32), "viridis")
        assert of.rgb is not None
        return to_uint8(np.asarray(of.rgb[frame], np.float32))

    def legend(self, by: ColourBy) -> str:
        """What the colours mean, as HTML."""
        unit = " m" if self._of.scale_kind == "metric" else ""
        low, high = self._limits
        if by == "depth":
            far = f"{1 / low:.3g}{unit} far" if low > 0 else "far"
            return colour_bar("turbo", f"near {1 / high:.3g}{unit}", far, backwards=True)
        if by == "confidence":
            return colour_bar("viridis", "unsure 0", f"{self._most:.2f} sure")
        if by == "moving":
            return colour_bar("viridis", "still", "moving")
        return "as in the picture"


def share_of(certain: Float[np.ndarray, " N"], threshold: float) -> float:
    """Share of the points, in percent, that are at least this sure.

    Args:
        certain: their confidence, rising.
    """
    if certain.size == 0:
        return 100.0
    return 100.0 * (1 - np.searchsorted(certain, threshold, side="left") / certain.size)


def threshold_of(certain: Float[np.ndarray, " N"], share: float) -> float:
    """The confidence that this share of the points, in percent, reaches; 0 for all of them.

    Args:
        certain: their confidence, rising.
    """
    if share >= 100 or certain.size == 0:
        return 0.0
    place = min(int(np.ceil(certain.size * (1 - share / 100))), certain.size - 1)
    return float(certain[place])


def plain_colours(num_points: int) -> UInt8[np.ndarray, "N 3"]:
    """Grey, for points whose picture is not there."""
    return np.tile(np.array(_GREY, np.uint8), (num_points, 1))
