"""The objective on all pixels, window by window, as it is reported; the solver sees the sampled pixels only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.pixel_terms import Optics
from geo4d.fusion.samples import point_weight
from geo4d.fusion.variables import Variables
from geo4d.types import Prediction


@dataclass(frozen=True)
class ObjectiveValues:
    """Weighted terms on all pixels, and their sum."""

    points: float
    disparity: float
    trajectory: float
    smoothness: float

    @property
    def total(self) -> float:
        """Sum of the four weighted terms."""
        return self.points + self.disparity + self.trajectory + self.smoothness

    def to_dict(self) -> dict[str, float]:
        """The terms and their sum by name."""
        return {**vars(self), "total": self.total}


def evaluate_objective(
    predictions: Sequence[Prediction],
    variables: Variables,
    depth_of: Callable[[int], Float[Tensor, "H W"]],
    optics: Optics,
    *,
    disparity_weight: Float[Tensor, " G"],
    trajectory_weight: Mapping[int, float],
    smoothness_weight: float,
    weight_limit: float,
    min_disparity: float,
    typical_disparity_scale: float | None = None,
    window_weight: Float[Tensor, " G"] | None = None,
    mask_sky: bool = True,
) -> ObjectiveValues:
    """The objective on all pixels, window by window; with the published weights, the published loss.

    Args:
        variables: ``log_depth`` is not read.
        depth_of: frame -> dense depth; not finite counts as infinitely far in the disparity term and not at all in the
            point term.
        disparity_weight: [G]; 0 for dropped windows.
        trajectory_weight: window -> weight of its trajectory; absent for dropped ones. Trajectories are numbered in
            the order of the windows that carry one.
        window_weight: [G] weight of a window's points, and its share in the mean; None for 1.
        mask_sky: leave pixels that the predictor calls sky out of the disparity term.
    Source: Geo4D Eq. (4) to (9), as summed by the authors' code: points and disparity are means over all pixels of
        all windows, trajectory and smoothness are sums.
    """
    points_sum = disparity_sum = trajectory_sum = count = 0.0
    track = 0
    scale_all = variables.disparity_scale
    for index in range(len(predictions)):
        prediction = predictions[index]
        height, width = prediction.size
        frames = prediction.frame_indices.long()
        depth = torch.stack([depth_of(int(frame)) for frame in frames]).flatten(1).float()
        weight_of_window = 1.0 if window_weight is None else float(window_weight[index])
        count += weight_of_window * depth.numel()
        finite = torch.isfinite(depth)
        focal = variables.log_focal.exp()[frames].float()
        grid_y, grid_x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centre = optics.principal_point[frames].float()
        rays = torch.stack(
            [
                (grid_x.reshape(1, -1) - centre[:, :1]) / focal[:, None],
                (grid_y.reshape(1, -1) - centre[:, 1:]) / (focal * optics.aspect[frames].float())[:, None],
                torch.ones(len(frames), height * width),
            ],
            1,
        )
        if prediction.point_map is not None:
            points = prediction.point_map.float()
            uncertainty = prediction.point_uncertainty
            weight = point_weight(
                prediction, points, uncertainty, prediction.valid, 1.0, weight_limit
            ).flatten(1)
            moved = terms.moved_points(
                torch.nan_to_num(points).flatten(1, 2).mT,
                variables.window_scale[index].expand(len(frames)),
                variables.window_rotation[index].expand(len(frames), 3, 3),
                variables.window_translation[index].expand(len(frames), 3),
                variables.rotation[frames],
                variables.centre[frames],
            )
            safe = torch.where(finite, depth, torch.ones_like(depth))
            distance = terms.point_residual(safe, rays, moved).norm(dim=1)
            points_sum += weight_of_window * float((weight * distance * finite).sum(dtype=torch.float64))
        if prediction.disparity is not None and float(disparity_weight[index]) > 0:
            disparity = prediction.disparity.flatten(1).float()
            expanded = scale_all[index].expand(len(frames))
            difference = terms.disparity_residual(
                torch.nan_to_num(depth, nan=torch.inf, posinf=torch.inf),
                disparity,
                expanded,
                variables.disparity_shift[index].expand(len(frames)),
            )
            unit = float(terms.disparity_unit(scale_all[index], typical_disparity_scale))
            mask = torch.isfinite(disparity) & (disparity > min_disparity)
            if mask_sky and prediction.sky is not None:
                mask = mask & ~prediction.sky.flatten(1)
            total = float(torch.where(mask, difference.abs(), 0.0).sum(dtype=torch.float64))
            disparity_sum += float(disparity_weight[index]) * unit * total
        cameras = prediction.ray_c2w if prediction.ray_c2w is not None else prediction.c2w
        if cameras is not None:
            if index in trajectory_weight:
                rotation, centre_w = terms.moved_trajectory(
                    cameras.double(),
                    variables.trajectory_scale[track].expand(len(frames)),
                    variables.trajectory_rotation[track].expand(len(frames), 3, 3),
                    variables.trajectory_translation[track].expand(len(frames), 3),
                )
                distance = terms.camera_distance(
                    rotation, centre_w, variables.rotation[frames], variables.centre[frames]
                )
                trajectory_sum += trajectory_weight[index] * float(distance.sum())
            track += 1
    smooth = terms.camera_distance(
        variables.rotation[:-1], variables.centre[:-1], variables.rotation[1:], variables.centre[1:]
    )
    return ObjectiveValues(
        points=points_sum / max(count, 1.0),
        disparity=disparity_sum / max(count, 1.0),
        trajectory=trajectory_sum,
        smoothness=smoothness_weight * float(smooth.sum()),
    )
