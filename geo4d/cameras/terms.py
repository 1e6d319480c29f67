"""The unknowns of cameras and points, and what their errors cost: reprojection, measured depth.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.observations import Observations
from geo4d.geometry.poses import nearest_rotation

MIN_DEPTH = 1e-6


_BEHIND = 60.0  # squared, scaled error that a point behind its camera counts as


@dataclass(frozen=True)
class BundleState:
    """The unknowns, float64.

    Attributes:
        w2c: world to camera.
        log_focal: natural logarithm of the focal length in pixels, per camera.
        points: homogeneous, unit length; the sign is such that the point lies in front of its cameras.
        radial: first radial distortion coefficient, shared: a ray at tangent r appears at r (1 + radial r^2).
    """

    w2c: Float[Tensor, "N 4 4"]
    log_focal: Float[Tensor, " N"]
    points: Float[Tensor, "P 4"]
    radial: float = 0.0


def project_points(
    state: BundleState, observations: Observations
) -> tuple[Float[Tensor, "O 2"], Float[Tensor, "O 3"]]:
    """Predicted uv, and the (homogeneous) camera-frame points; depth is positive in front of the camera."""
    points = state.points.T[:, observations.point]
    world_to_camera = state.w2c[:, :3].permute(1, 2, 0)[:, :, observations.camera]
    camera_points = (world_to_camera * points).sum(1)
    plane = camera_points[:2] / camera_points[2].clamp_min(MIN_DEPTH)
    if state.radial != 0:
        plane = plane * (1 + state.radial * plane.square().sum(0))
    return (state.log_focal.exp()[observations.camera] * plane).T, camera_points.T


def depth_error(
    state: BundleState, observations: Observations, camera_points: Float[Tensor, "O 3"]
) -> Float[Tensor, " O"]:
    """Weighted difference of log depth, in pixels; 0 where none was measured or the point is at infinity."""
    if observations.log_depth is None or observations.depth_weight is None:
        return torch.zeros_like(observations.weight)
    w = state.points[observations.point, 3]
    usable = (w > MIN_DEPTH) & (observations.depth_weight > 0)
    depth = camera_points[:, 2].clamp_min(MIN_DEPTH) / w.clamp_min(MIN_DEPTH)
    return torch.where(usable, observations.depth_weight * (depth.log() - observations.log_depth), 0.0)


def reprojection_error(state: BundleState, observations: Observations) -> Float[Tensor, " O"]:
    """Distance in pixels; infinite behind the camera."""
    uv, camera_points = project_points(state, observations)
    error = torch.hypot(*(uv - observations.uv).T)
    return torch.where(camera_points[:, 2] > MIN_DEPTH, error, torch.inf)


def robust_cost(error: Float[Tensor, " O"], weight: Float[Tensor, " O"], width: float) -> float:
    """Sum of Cauchy costs, pixels squared; points behind the camera count as far outliers."""
    scaled = (error / width).square().clamp_max(math.exp(_BEHIND / 10))
    return float((weight * width**2 * torch.log1p(scaled)).sum())


def tidy(state: BundleState) -> BundleState:
    """Rotations made exact again after many products."""
    w2c = state.w2c.clone()
    w2c[:, :3, :3] = nearest_rotation(w2c[:, :3, :3])
    return replace(state, w2c=w2c)


def rescale(state: BundleState, scale: float) -> BundleState:
    """The same solution in a world ``scale`` times larger."""
    w2c = state.w2c.clone()
    w2c[:, :3, 3] *= scale
    points = state.points * state.points.new_tensor([scale, scale, scale, 1.0])
    return replace(state, w2c=w2c, points=points / points.norm(dim=1, keepdim=True))
