"""Per-frame prior points to the maps that condition the diffusion, and their statistics over the whole video.

The maps are normalised with three numbers of the whole video. They are functions of a few numbers per frame, so a long
video is passed once, one frame at a time, and nothing but those numbers is kept.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

MIN_DEPTH = 1e-3
"""Smallest normalised depth that still changes the disparity."""

DEFAULT_TANGENT = 0.5773502691896257
"""Tangent of half the field of view (60 degrees) along the longer side, for frames without a usable point."""


@dataclass(frozen=True)
class PriorStatistics:
    """What the prior maps of a video are normalised with.

    Attributes:
        scale: mean depth of the valid pixels; points are divided by it.
        disparity_low, disparity_high: range of 1 / normalised depth that is mapped to [-1, 1].
    """

    scale: float
    disparity_low: float
    disparity_high: float


def usable_points(
    points: Float[Tensor, "T H W 3"], mask: Bool[Tensor, "T H W"]
) -> tuple[Float[Tensor, "T H W 3"], Bool[Tensor, "T H W"], Bool[Tensor, "T H W"]]:
    """Points in float32, the mask without pixels of impossible depth, and where the depth is possible.

    A depth of zero or less, or a non-finite one, would turn into NaN and spread through the encoder. Such pixels get the
    harmless point (0, 0, 1) and leave the mask. Points of positive depth stay as they are, masked or not.
    """
    points = points.float()
    possible = (points[..., 2] > 0) & torch.isfinite(points).all(-1)
    neutral = points.new_tensor([0.0, 0.0, 1.0])
    return torch.where(possible[..., None], points, neutral), mask & possible, possible


def frame_records(points: Float[Tensor, "T H W 3"], mask: Bool[Tensor, "T H W"]) -> Float[Tensor, "T 5"]:
    """Five numbers per frame from which ``merge_statistics`` finds the statistics of any set of frames.

    Sum of valid depth, number of valid pixels, number of pixels, and the depths at the 0.01 and 0.99 quantiles of
    disparity over all pixels (nearest rank; a masked pixel has disparity 0, so depth infinity). float64.
    """
    points, mask, _ = usable_points(points, mask)
    depth = points[..., 2].flatten(1)
    mask = mask.flatten(1)
    count = depth.shape[1]
    far = torch.where(mask, depth, torch.inf)
    descending = far.sort(dim=1, descending=True).values
    ranks = [round(quantile * (count - 1)) for quantile in (0.01, 0.99)]
    total = torch.where(mask, depth, 0.0).double().sum(1)
    records = [total, mask.sum(1), torch.full_like(total, count), *(descending[:, rank] for rank in ranks)]
    return torch.stack([record.double() for record in records], dim=1)


def merge_statistics(records: Float[Tensor, "T 5"]) -> PriorStatistics:
    """Statistics of all frames whose records are given.

    Without any valid pixel the scale is its floor, 0.001, and the disparity range is empty; the maps are then constant.
    """
    total, valid, count = (records[:, i].sum() for i in range(3))
    scale = max(float((total / count) / (valid / count + 1e-8)), 1e-3)
    depth = (records[:, 3:].float() / scale).clamp(min=MIN_DEPTH)
    low, high = (1 / depth).unbind(1)
    return PriorStatistics(scale, float(low.min()), float(high.max()))


def diagonal_grid(size: tuple[int, int], device: torch.device | str) -> Float[Tensor, "H W 2"]:
    """x and y of every pixel, from exactly -1 at the first to exactly +1 at the last pixel centre of a row or column.

    This corner-aligned grid is part of the trained representation; ``tangents_to_intrinsics`` turns it into a pinhole.
    """
    axes = [torch.linspace(-1, 1, n, device=device) if n > 1 else torch.zeros(1, device=device) for n in size]
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y], dim=-1)


def fit_frame_intrinsics(
    slopes: Float[Tensor, "T H W 2"], possible: Bool[Tensor, "T H W"]
) -> Float[Tensor, "T 4"]:
    """Centre (cx, cy) and half-size over focal (fx, fy) of every frame on the corner-aligned grid.

    The published formula is a mean of slopes over all pixels. Rows and columns through the exact centre (odd sizes),
    where it divides by zero, are left out. A frame with impossible depths gets the least-squares line over its
    other pixels instead, because a mean over an uneven set of pixels would move the centre.

    Args:
        slopes: x / z and y / z of every pixel.
        possible: where they mean something.
    """
    _num_frames, height, width = possible.shape
    grid = diagonal_grid((height, width), slopes.device)
    centre = slopes.mean(dim=(1, 2))
    off_centre = grid.abs() > 1e-6
    ratio = torch.where(
        off_centre, (slopes - centre[:, None, None]) / torch.where(off_centre, grid, 1.0), 0.0
    )
    tangent = ratio.sum(dim=(1, 2)) / off_centre.sum(dim=(0, 1)).clamp(min=1)
    result = torch.cat([centre, tangent], dim=1)
    longer = max(height, width)
    default = slopes.new_tensor(
        [0.0, 0.0, DEFAULT_TANGENT * width / longer, DEFAULT_TANGENT * height / longer]
    )
    for t in torch.nonzero(~possible.flatten(1).all(1)).flatten().tolist():
        x, y = grid[possible[t]].double(), slopes[t][possible[t]].double()
        if len(x) == 0:
            result[t] = default
            continue
        mean_x, mean_y = x.mean(0), y.mean(0)
        spread = ((x - mean_x) ** 2).sum(0)
        fitted = ((x - mean_x) * (y - mean_y)).sum(0) / spread.clamp(min=1e-12)
        usable = (spread > 1e-9) & (fitted > 0)
        fitted = torch.where(usable, fitted, default[2:].double())
        result[t] = torch.cat([mean_y - fitted * mean_x, fitted]).float()
    return result


@dataclass(frozen=True)
class PriorConditioning:
    """Normalised prior maps of a few frames, at the size of the prior.

    Attributes:
        disparity: in [-1, 1].
        mask: -1 or 1.
        log_depth: log of the normalised depth, 0 where masked.
        slopes: x / z and y / z.
        intrinsics: cx, cy, fx, fy as of ``fit_frame_intrinsics``.
        points: normalised.
    """

    disparity: Float[Tensor, "T H W"]
    mask: Float[Tensor, "T H W"]
    log_depth: Float[Tensor, "T H W"]
    slopes: Float[Tensor, "T H W 2"]
    intrinsics: Float[Tensor, "T 4"]
    points: Float[Tensor, "T H W 3"]

    @property
    def theta(self) -> Float[Tensor, " T"]:
        """Tangent of half the diagonal field of view."""
        return self.intrinsics[:, 2:].square().sum(1).sqrt()

    def encoder_input(self, size: tuple[int, int]) -> Float[Tensor, "T 4 h w"]:
        """theta, log depth, disparity, mask at the network's size. A resized mask is no longer -1 or 1."""
        height, width = self.disparity.shape[1:]
        maps = torch.stack([self.log_depth, self.disparity, self.mask], dim=1)
        if (height, width) != size:
            maps[:, 0] = maps[:, 0].clamp(max=10).exp()
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
            maps[:, 0] = maps[:, 0].log()
        theta = self.theta[:, None, None, None].expand(-1, 1, *size)
        return torch.cat([theta, maps], dim=1)


def condition_prior(
    points: Float[Tensor, "T H W 3"], mask: Bool[Tensor, "T H W"], statistics: PriorStatistics
) -> PriorConditioning:
    """Normalise the prior's points of a few frames with the statistics of their video.

    Args:
        points: camera-frame points of each frame, unit of the prior.
        mask: True where the prior believes its points.
    """
    points, mask, possible = usable_points(points, mask)
    points = points / statistics.scale
    depth = points[..., 2]
    disparity = mask / depth.clamp(min=MIN_DEPTH)
    span = statistics.disparity_high - statistics.disparity_low + 1e-4
    disparity = 2 * ((disparity - statistics.disparity_low) / span).clamp(0, 1) - 1
    slopes = points[..., :2] / (depth[..., None] + 1e-7)
    return PriorConditioning(
        disparity=disparity,
        mask=2.0 * mask - 1.0,
        log_depth=(depth + 1e-7).log() * mask,
        slopes=slopes,
        intrinsics=fit_frame_intrinsics(slopes, possible),
        points=points,
    )
