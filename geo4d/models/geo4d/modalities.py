"""Point map, disparity and rays: their normalised form, which the codec sees, and back.

Maps are [T, H, W, C]. Normalised maps lie near [-1, 1]; what is outside marks sky and points too far away.
Training targets (:func:`normalise_points`, :func:`normalise_disparity`) are exactly inverse to what inference reads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.geometry.maps import ray_map_to_cameras

SKY_VALUE = 1.05
"""Normalised value of all three coordinates where there is no surface; the disparity there is minus this."""

FAR_LIMIT = 1.99
"""A normalised coordinate beyond this was clamped: the point is not where it seems."""

SKY_TOLERANCE = {"evaluation": 0.1, "demo": 0.35}
"""How far from ``SKY_VALUE`` a pixel still counts as sky, in the two published scripts."""


def _quantile_range(values: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Lower end and width of the range between the 2 % and 98 % order statistics, 0.01 wider on both sides."""
    if values.numel() == 0:
        raise ValueError("expected at least one valid pixel to normalise by, got none")
    ordered = values.sort().values
    lower = ordered[int(0.02 * values.numel())] - 0.01
    upper = ordered[int(0.98 * values.numel())] + 0.01
    return lower, upper - lower


def normalise_points(
    points: Float[Tensor, "T H W 3"], valid: Bool[Tensor, "T H W"]
) -> tuple[Float[Tensor, "T H W 3"], Float[Tensor, ""], Float[Tensor, ""]]:
    """Point map of a window to its normalised form.

    Args:
        points: any unit, the frame in which they are to be learned.
        valid: pixels with a surface; the others become ``SKY_VALUE``.
    Returns:
        normalised points; scale and shift, with ``points = scale * decoded + (0, 0, shift)`` for what
        :func:`decode_points` gives back.
    Raises:
        ValueError: no valid pixel.
    Source: Geo4D, section 3.2 and the helpers of its release.
    """
    shift, scale = _quantile_range(points[..., 2][valid])
    lateral = 2.0 * points[..., :2] / scale
    along = 2.0 * (points[..., 2:] - shift) / scale - 1.0
    normalised = torch.cat([lateral, along], dim=-1)
    normalised = torch.where(valid[..., None], normalised, SKY_VALUE)
    return normalised.clamp(-2.0, 2.0), scale, shift


def normalise_disparity(
    depth: Float[Tensor, "T H W"], valid: Bool[Tensor, "T H W"]
) -> tuple[Float[Tensor, "T H W 1"], Float[Tensor, ""], Float[Tensor, ""]]:
    """Inverse depth of a window to its normalised form.

    Returns:
        normalised disparity; scale and shift, with ``1 / depth = scale * decoded + shift`` for what
        :func:`decode_disparity` gives back.
    Raises:
        ValueError: no valid pixel.
    """
    disparity = 1.0 / (depth + 1e-8)
    shift, scale = _quantile_range(disparity[valid])
    normalised = torch.where(valid, 2.0 * (disparity - shift) / scale - 1.0, -SKY_VALUE)
    return normalised.clamp(-1.1, 1.1)[..., None], scale, shift


def normalise_depth(
    depth: Float[Tensor, "T H W"],
) -> tuple[Float[Tensor, "T H W 3"], Float[Tensor, ""], Float[Tensor, ""]]:
    """Depth between its extremes (0.01 wider on both sides) to [-1, 1], repeated to three channels.

    Returns:
        normalised depth, scale and shift.
    """
    shift = depth.min() - 0.01
    scale = depth.max() + 0.01 - shift
    normalised = 2.0 * (depth - shift) / scale - 1.0
    return normalised[..., None].expand(*depth.shape, 3), scale, shift


def decode_points(normalised: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Normalised points to the window's unit: x / 2, y / 2, (z + 1) / 2."""
    x, y, z = normalised.unbind(-1)
    return torch.stack([x / 2.0, y / 2.0, (z + 1.0) / 2.0], dim=-1)


def decode_disparity(normalised: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Normalised disparity to [0, 1], up to scale and shift."""
    return (normalised + 1.0) / 2.0


@dataclass(frozen=True)
class DecodedPoints:
    """A decoded point map and what may be believed of it.

    Attributes:
        points: in the window's unit; also where they are not valid.
        uncertainty: predicted spread of a normalised coordinate, > 0. In the unit of x and y of ``points`` it is half.
        sky: all coordinates close to ``SKY_VALUE``.
        far: some coordinate beyond ``FAR_LIMIT``.
        confidence: 1 / uncertainty, and 0 where sky or far.
    """

    points: Float[Tensor, "T H W 3"]
    uncertainty: Float[Tensor, "T H W"]
    sky: Bool[Tensor, "T H W"]
    far: Bool[Tensor, "T H W"]
    confidence: Float[Tensor, "T H W"]

    @property
    def valid(self) -> Bool[Tensor, "T H W"]:
        """True where the point is neither sky nor too far."""
        return ~(self.sky | self.far)


def decode_point_map(raw: Float[Tensor, "T H W 4"], sky_tolerance: float = 0.1) -> DecodedPoints:
    """What the point-map codec decodes, read.

    Args:
        raw: three normalised coordinates and the raw uncertainty.
        sky_tolerance: see ``SKY_TOLERANCE``.
    """
    normalised = raw[..., :3]
    uncertainty = F.softplus(raw[..., 3])
    near_sky = (normalised > SKY_VALUE - sky_tolerance) & (normalised < SKY_VALUE + sky_tolerance)
    sky = near_sky.all(-1)
    far = (normalised.abs() > FAR_LIMIT).any(-1)
    confidence = torch.where(sky | far, 0.0, 1.0 / uncertainty)
    return DecodedPoints(decode_points(normalised), uncertainty, sky, far, confidence)


def crop_to_square(maps: Float[Tensor, "T H W C"]) -> Float[Tensor, "T S S C"]:
    """Centre square of a map, as the published camera recovery takes it.

    Equal cuts on both sides; where the sides differ by an odd number, the rest is resampled to a square (nearest).
    """
    height, width = maps.shape[1:3]
    side = min(height, width)
    cut = (max(height, width) - side) // 2
    longer = 1 if height > width else 2
    kept = maps.narrow(longer, cut, max(height, width) - 2 * cut)
    chosen = (torch.arange(side, device=maps.device) * kept.shape[longer]) // side
    return kept.index_select(longer, chosen)


def rays_to_cameras(
    direction: Float[Tensor, "T H W 3"], moment: Float[Tensor, "T H W 3"]
) -> Float[Tensor, "T 4 4"]:
    """Camera to window from decoded ray maps; the first rotation is the identity.

    Source: Geo4D, section 3.2, on the centre square as in its release.
    """
    return ray_map_to_cameras(crop_to_square(torch.cat([direction, moment], dim=-1)))


def frames_with_nonfinite(maps: Float[Tensor, "T *s"]) -> Int[Tensor, " n"]:
    """Positions of the frames that contain NaN or infinity."""
    return (~torch.isfinite(maps.flatten(1)).all(1)).nonzero()[:, 0]
