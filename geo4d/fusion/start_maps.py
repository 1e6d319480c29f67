"""Scales and shifts with which disparities and camera paths of windows start."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.fusion.register import WINDOWS_AT_ONCE
from geo4d.fusion.samples import Samples, Trajectory
from geo4d.fusion.start_focal import masked_median
from geo4d.geometry.poses import nearest_rotation, rotation_angle


@dataclass(frozen=True)
class DisparityFits:
    """Alignment of every window's disparity with the current depths.

    Attributes:
        scale, shift: see ``Variables``; 1 and 0 for windows without usable samples.
        error: median, in the window's own unit; infinite without usable samples.
        share: of usable samples within a factor of 1.25; 0 without any.
    """

    scale: Float[Tensor, " G"]
    shift: Float[Tensor, " G"]
    error: Float[Tensor, " G"]
    share: Float[Tensor, " G"]

    def cpu(self) -> "DisparityFits":
        """The same on the CPU."""
        return DisparityFits(self.scale.cpu(), self.shift.cpu(), self.error.cpu(), self.share.cpu())


def fit_disparities(
    samples: Samples, depth: Float[Tensor, "N P"], usable: Bool[Tensor, "O P"], *, num_iterations: int = 25
) -> DisparityFits:
    """Scale and shift of every window's disparity by least absolute deviations (reweighted)."""
    rows, inside = _rows_by_window(samples)
    fits = [
        _fit_disparities(samples, depth, usable, rows[first:last], inside[first:last], num_iterations)
        for first in range(0, len(rows), WINDOWS_AT_ONCE)
        for last in [first + WINDOWS_AT_ONCE]
    ]
    return DisparityFits(*(torch.cat([getattr(fit, f.name) for fit in fits]) for f in fields(DisparityFits)))


def _fit_disparities(
    samples: Samples,
    depth: Float[Tensor, "N P"],
    usable: Bool[Tensor, "O P"],
    rows: Int[Tensor, "g V"],
    inside: Bool[Tensor, "g V"],
    num_iterations: int,
) -> DisparityFits:
    """The same for some windows, given as the rows of their observations."""
    device, num_windows = samples.points.device, len(rows)
    source = samples.disparity[rows].flatten(1).double()
    samples.touched(rows.numel())
    target = (1 / depth[samples.frame[rows]]).flatten(1).double()
    base = (usable[rows] & inside[..., None]).flatten(1).double()
    weight = base
    scale = torch.ones(num_windows, dtype=torch.float64, device=device)
    shift = torch.zeros_like(scale)
    middle = masked_median(target.abs(), base > 0).nan_to_num(nan=1.0)
    error = torch.zeros_like(source)
    for number in range(num_iterations):
        total = weight.sum(1, keepdim=True).clamp(min=1e-30)
        source_mean = (weight * source).sum(1, keepdim=True) / total
        target_mean = (weight * target).sum(1, keepdim=True) / total
        centred = source - source_mean
        variance = (weight * centred * centred).sum(1)
        scale = (weight * centred * (target - target_mean)).sum(1) / variance.clamp(min=1e-30)
        shift = target_mean[:, 0] - scale * source_mean[:, 0]
        error = (scale[:, None] * source + shift[:, None] - target).abs()
        floor = 1e-3 * middle if number > 5 else 0.1 * masked_median(error, base > 0).nan_to_num(nan=1.0)
        weight = base / torch.maximum(error, floor.clamp(min=1e-9)[:, None])
    predicted = (scale[:, None] * source + shift[:, None]).clamp(min=1e-5)
    ratio = torch.maximum(predicted / target, target / predicted)
    count = base.sum(1)
    share = (base * (ratio < 1.25)).sum(1) / count.clamp(min=1)
    median = masked_median(error, base > 0) / scale.abs().clamp(min=1e-9)
    enough = count >= 8
    return DisparityFits(
        torch.where(enough, scale, 1.0),
        torch.where(enough, shift, 0.0),
        torch.where(enough & median.isfinite(), median, torch.inf),
        torch.where(enough, share, 0.0),
    )


def _rows_by_window(samples: Samples) -> tuple[Tensor, Tensor]:
    """Observations of each window [G, V], padded, and True where they exist."""
    longest = int(samples.local.max()) + 1
    rows = torch.zeros(samples.num_windows, longest, dtype=torch.long, device=samples.frame.device)
    inside = torch.zeros(samples.num_windows, longest, dtype=torch.bool, device=samples.frame.device)
    rows[samples.window, samples.local] = torch.arange(len(samples.frame), device=samples.frame.device)
    inside[samples.window, samples.local] = True
    return rows, inside


@dataclass(frozen=True)
class TrajectoryFits:
    """Alignment of every trajectory with the current cameras.

    Attributes:
        scale, rotation, translation: see ``Variables``.
        rpe_rad: root mean square angle between the relative rotations of neighbours.
    """

    scale: Float[Tensor, " K"]
    rotation: Float[Tensor, "K 3 3"]
    translation: Float[Tensor, "K 3"]
    rpe_rad: Float[Tensor, " K"]


def fit_trajectories(
    trajectories: Sequence[Trajectory],
    rotation: Float[Tensor, "N 3 3"],
    centre: Float[Tensor, "N 3"],
    default_scale: Float[Tensor, " K"],
    *,
    num_iterations: int = 10,
) -> TrajectoryFits:
    """Rotation by a reweighted chordal mean, then scale and translation by reweighted least squares.

    Args:
        default_scale: taken where the cameras hardly move, so that the centres say nothing.
    """
    count = len(trajectories)
    result = TrajectoryFits(
        default_scale.clone(),
        torch.eye(3, dtype=torch.float64).repeat(count, 1, 1),
        torch.zeros(count, 3, dtype=torch.float64),
        torch.zeros(count, dtype=torch.float64),
    )
    by_length: dict[int, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        by_length.setdefault(len(trajectory.frames), []).append(index)
    for rows in by_length.values():
        frames = torch.stack([trajectories[k].frames for k in rows])
        c2w = torch.stack([trajectories[k].c2w for k in rows])
        base = torch.stack([trajectories[k].weight for k in rows])
        fitted = _fit_equal_lengths(
            c2w, base, rotation[frames], centre[frames], default_scale[rows], num_iterations
        )
        result.scale[rows], result.rotation[rows], result.translation[rows], result.rpe_rad[rows] = fitted
    return result


def _fit_equal_lengths(
    c2w: Float[Tensor, "k V 4 4"],
    base: Float[Tensor, "k V"],
    camera: Float[Tensor, "k V 3 3"],
    target: Float[Tensor, "k V 3"],
    default_scale: Float[Tensor, " k"],
    num_iterations: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    local, origin = c2w[..., :3, :3], c2w[..., :3, 3]
    turns = camera @ local.mT
    weight, mean = base, nearest_rotation(turns.mean(1))
    for _ in range(num_iterations):
        mean = nearest_rotation((weight[..., None, None] * turns).sum(1) + 1e-12 * mean)
        weight = base / (turns - mean[:, None]).flatten(2).norm(dim=2).clamp(min=1e-3)
    turned = origin @ mean.mT
    weight, scale = base, default_scale
    translation = target[:, 0] - scale[:, None] * turned[:, 0]
    for _ in range(num_iterations):
        share = (weight / weight.sum(1, keepdim=True).clamp(min=1e-30))[..., None]
        target_mean, turned_mean = (share * target).sum(1), (share * turned).sum(1)
        centred = turned - turned_mean[:, None]
        power = (share * centred**2).sum((1, 2))
        scale = (share * centred * (target - target_mean[:, None])).sum((1, 2)) / power.clamp(min=1e-15)
        sensible = (scale > 0.05 * default_scale) & (scale < 20 * default_scale)
        scale = torch.where(sensible, scale, default_scale)
        translation = target_mean - scale[:, None] * turned_mean
        distance = (scale[:, None, None] * turned + translation[:, None] - target).norm(dim=2)
        weight = base / distance.clamp(min=1e-4)
    rpe = torch.zeros_like(scale)
    if camera.shape[1] > 1:
        step, own = camera[:, :-1].mT @ camera[:, 1:], local[:, :-1].mT @ local[:, 1:]
        rpe = (rotation_angle(own.mT @ step) ** 2).mean(1).sqrt()
    return scale, mean, translation, rpe
