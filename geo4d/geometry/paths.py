"""Paths of cameras against each other: a path at other times, and the factor between two paths of one motion."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.fit import fit_similarity, fit_similarity_robust
from geo4d.geometry.poses import interpolate_rigid, transform

OUTLIER = 5.0
"""Positions farther off than this many times the median distance take no part in the final fit: for Gaussian errors in
three axes that is beyond seven standard deviations of one axis."""

PIECES = 4
"""Errors along a path are alike from frame to frame: it counts as so few independent measurements of its scale."""


def poses_at(
    stamps_s: Float[Tensor, " n"],
    poses: Float[Tensor, "n 4 4"],
    times_s: Float[Tensor, " t"],
    *,
    longest_gap_s: float,
    same_s: float,
) -> Float[Tensor, "t 4 4"]:
    """Poses at other times: on the way between two, where these lie close enough, else the one of the same moment.

    Args:
        stamps_s: seconds, strictly increasing.
        poses: rigid.
        times_s: seconds, any order.
        longest_gap_s: between two poses that are interpolated, at most.
        same_s: a pose this near in time counts as of the moment itself.
    Returns:
        NaN where there is neither.
    """
    after = torch.searchsorted(stamps_s, times_s).clamp(1, max(len(stamps_s) - 1, 1))
    after = after.clamp(max=len(stamps_s) - 1)
    before = (after - 1).clamp(min=0)
    step = stamps_s[after] - stamps_s[before]
    fraction = torch.where(step > 0, (times_s - stamps_s[before]) / step.clamp(min=1e-12), 0.0)
    inside = (fraction >= 0) & (fraction <= 1) & (step > 0) & (step <= longest_gap_s)
    between = interpolate_rigid(poses[before], poses[after], fraction.clamp(0, 1))
    nearest = torch.where(
        (times_s - stamps_s[before]).abs() <= (stamps_s[after] - times_s).abs(), before, after
    )
    near = (stamps_s[nearest] - times_s).abs() <= same_s
    found = torch.where(inside[:, None, None], between, poses[nearest])
    return torch.where((inside | near)[:, None, None], found, torch.nan)


@dataclass(frozen=True)
class PathFit:
    """A path laid onto another of the same motion.

    Attributes:
        similarity: takes the source onto the target; the scale is in its upper left block.
        scale: unit of the target / unit of the source.
        uncertainty: standard deviation of the logarithm of the scale, from how far the paths are apart.
        residual: root mean square distance that is left, unit of the target.
        extent: root mean square distance of the target's positions from their mean.
        used: positions that took part.
    """

    similarity: Float[Tensor, "4 4"]
    scale: float
    uncertainty: float
    residual: float
    extent: float
    used: Bool[Tensor, " n"]


def fit_path(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> PathFit:
    """The similarity between the positions of two paths: least squares without what lies far off.

    Without outliers the scale is the one that evaluations fit (Umeyama), so that a rigid alignment afterwards leaves no
    more than a similarity does.

    Raises:
        ValueError: fewer than three positions, or one of the paths stays in one place.
    """
    if len(source) < 3:
        raise ValueError(f"expected at least three positions in common, got {len(source)}")
    for name, path in (("result", source), ("trajectory", target)):
        spread = float((path - path.mean(0)).norm(dim=1).max())
        if spread <= 1e-6 * float(path.norm(dim=1).max()) or spread == 0:
            raise ValueError(f"expected two paths that move, but that of the {name} stays in one place")
    first = fit_similarity_robust(source, target)
    distance = (transform(first, source) - target).norm(dim=1)
    used = distance <= OUTLIER * distance.median() + 1e-12
    final = fit_similarity(source[used], target[used])
    scale = float(final[:3, :3].det().clamp(min=0) ** (1 / 3))
    residual = float((transform(final, source[used]) - target[used]).square().sum(1).mean().sqrt())
    extent = float((target[used] - target[used].mean(0)).square().sum(1).mean().sqrt())
    uncertainty = residual / (extent * PIECES**0.5) if extent > 0 and scale > 0 else float("inf")
    return PathFit(final, scale, uncertainty, residual, extent, used)
