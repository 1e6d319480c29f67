"""The unknowns of cameras and points, and what their errors cost: reprojection, measured depth.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.observations import Observations
from geo4d.geometry.poses import nearest_rotation
from geo4d.optimise.kernels import cauchy_cost, cauchy_weight

MIN_DEPTH = 1e-6

AT_ONCE = 16_384
"""Observations that are worked on together: what that takes, some hundred bytes each, does not grow with the video."""


_BEHIND = 60.0
"""Ten times the log of a squared error in widths: a point behind its camera counts as 20 widths off, none as more."""


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


@dataclass(frozen=True)
class Seen:
    """What all terms share: points in the axes of the cameras that saw them. The last axis is the observation.

    Attributes:
        camera_points: homogeneous points there, without their fourth number.
        w: that number, as in ``BundleState.points``.
        ahead: in front of the camera.
        z: depth, kept from 0.
        plane: tangents.
        focal: of the camera, pixels.
    """

    camera_points: Float[Tensor, "3 O"]
    w: Float[Tensor, " O"]
    ahead: Bool[Tensor, " O"]
    z: Float[Tensor, " O"]
    plane: Float[Tensor, "2 O"]
    focal: Float[Tensor, " O"]


@dataclass(frozen=True)
class Rows:
    """Weighted residuals of one term and their derivatives; None where an unknown does not matter to it.

    Attributes:
        residual: pixels times the root of the weight.
        by_place: by the point in the axes of the camera.
        by_focal: by the logarithm of the focal length.
        by_radial: by the radial coefficient.
        by_w: by the fourth number of the point.
    """

    residual: Float[Tensor, "r O"]
    by_place: Float[Tensor, "r 3 O"]
    by_focal: Float[Tensor, "r O"] | None = None
    by_radial: Float[Tensor, "r O"] | None = None
    by_w: Float[Tensor, "r O"] | None = None


def seen_by(state: BundleState, observations: Observations) -> Seen:
    """The points of all observations in the axes of their cameras."""
    camera = observations.camera
    world_to_camera = state.w2c[:, :3].permute(1, 2, 0)[:, :, camera]
    X = state.points.T[:, observations.point]
    p = (world_to_camera * X).sum(1)
    z = p[2].clamp_min(MIN_DEPTH)
    return Seen(p, X[3], p[2] > MIN_DEPTH, z, p[:2] / z, state.log_focal.exp()[camera])


def project_points(
    state: BundleState, observations: Observations
) -> tuple[Float[Tensor, "O 2"], Float[Tensor, "O 3"]]:
    """Predicted uv, and the (homogeneous) camera-frame points; depth is positive in front of the camera."""
    seen = seen_by(state, observations)
    return (seen.focal * _bent(seen.plane, state.radial)).T, seen.camera_points.T


def _bent(plane: Float[Tensor, "2 O"], radial: float) -> Float[Tensor, "2 O"]:
    return plane * (1 + radial * plane.square().sum(0)) if radial != 0 else plane


def reprojection_error(state: BundleState, observations: Observations) -> Float[Tensor, " O"]:
    """Distance in pixels; infinite behind the camera."""
    error = torch.empty_like(observations.weight)
    for rows, some in observations.slices(AT_ONCE):
        uv, camera_points = project_points(state, some)
        distance = torch.hypot(*(uv - some.uv).T)
        error[rows] = torch.where(camera_points[:, 2] > MIN_DEPTH, distance, torch.inf)
    return error


def robust_cost(error: Float[Tensor, " O"], weight: Float[Tensor, " O"], width: float) -> float:
    """Sum of Cauchy costs, pixels squared; points behind the camera count as far outliers."""
    squared = error.square().clamp_max(math.exp(_BEHIND / 10) * width**2)
    return float((weight * cauchy_cost(squared, width)).sum())


@runtime_checkable
class PointTerm(Protocol):
    """A term that ties cameras to points."""

    def cost(self, state: BundleState, width: float) -> float:
        """Robust cost, pixels squared."""
        ...

    def rows(self, state: BundleState, seen: Seen, width: float) -> Rows:
        """Linearised at a state."""
        ...

    def of(self, observations: Observations) -> PointTerm:
        """The term of other observations."""
        ...


@dataclass(frozen=True)
class Reprojection:
    """Where a point is seen, against where it should be: two rows."""

    observations: Observations

    def of(self, observations: Observations) -> Reprojection:
        """The term of other observations."""
        return Reprojection(observations)

    def cost(self, state: BundleState, width: float) -> float:
        """Robust cost, pixels squared."""
        return robust_cost(reprojection_error(state, self.observations), self.observations.weight, width)

    def rows(self, state: BundleState, seen: Seen, width: float) -> Rows:
        """Linearised at a state."""
        plane, radius = seen.plane, seen.plane.square().sum(0)
        stretch = 1 + state.radial * radius
        uv = seen.focal * stretch * plane
        residual = uv - self.observations.uv.T
        kernel = cauchy_weight(residual.square().sum(0), width)
        root = (self.observations.weight * seen.ahead * kernel).sqrt()
        scale = seen.focal / seen.z * root
        by_place = torch.empty(2, 3, len(root), dtype=root.dtype)
        by_place[:, :2] = plane[:, None] * plane * (2 * state.radial * scale)
        by_place[0, 0] += stretch * scale
        by_place[1, 1] += stretch * scale
        by_place[:, 2] = -(by_place[:, :2] * plane).sum(1)
        return Rows(residual * root, by_place, uv * root, plane * (seen.focal * radius * root))


@dataclass(frozen=True)
class MeasuredDepth:
    """The logarithm of a point's depth against that of a depth map: one row; nothing where none was measured."""

    observations: Observations

    def of(self, observations: Observations) -> MeasuredDepth:
        """The term of other observations."""
        return MeasuredDepth(observations)

    def error(self, seen: Seen) -> Float[Tensor, " O"]:
        """Weighted difference of log depth, in pixels; 0 where none was measured or the point is at infinity."""
        log_depth, strength = self.observations.log_depth, self.observations.depth_weight
        assert log_depth is not None
        assert strength is not None
        usable = (seen.w > MIN_DEPTH) & (strength > 0)
        depth = seen.z / seen.w.clamp_min(MIN_DEPTH)
        return torch.where(usable, strength * (depth.log() - log_depth), 0.0)

    def cost(self, state: BundleState, width: float) -> float:
        """Robust cost, pixels squared."""
        error = torch.empty_like(self.observations.weight)
        for rows, some in self.observations.slices(AT_ONCE):
            error[rows] = MeasuredDepth(some).error(seen_by(state, some)).abs()
        return robust_cost(error, self.observations.weight, width)

    def rows(self, state: BundleState, seen: Seen, width: float) -> Rows:
        """Linearised at a state."""
        strength = self.observations.depth_weight
        assert strength is not None
        error = self.error(seen)
        root = (self.observations.weight * seen.ahead * cauchy_weight(error.square(), width)).sqrt()
        slope = root * (seen.w > MIN_DEPTH) * strength
        by_place = torch.zeros(1, 3, len(root), dtype=root.dtype)
        by_place[0, 2] = slope / seen.z
        # The depth is z / w: the fourth number itself counts too.
        return Rows((error * root)[None], by_place, by_w=(-slope / seen.w.clamp_min(MIN_DEPTH))[None])


def usual_terms(observations: Observations) -> list[PointTerm]:
    """Reprojection and, where it is measured, depth."""
    terms: list[PointTerm] = [Reprojection(observations)]
    if observations.log_depth is not None and observations.depth_weight is not None:
        terms.append(MeasuredDepth(observations))
    return terms


@dataclass(frozen=True)
class Prior:
    """A square pull on some numbers, and on the differences of neighbours: sum of ``weight`` (x - ``centre``)^2.

    Attributes:
        weight: of every number.
        centre: where it is pulled to.
        link: weight of the squared differences of neighbours.
    """

    weight: float
    centre: float
    link: float = 0.0

    def cost(self, x: Float[Tensor, " n"]) -> float:
        """At some numbers."""
        pull = float((self.weight * (x - self.centre) ** 2).sum())
        return pull + float((self.link * (x[1:] - x[:-1]) ** 2).sum())

    def gradient(self, x: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Half the gradient, and half the curvature; neighbours are coupled by -``link``."""
        gradient = self.weight * (x - self.centre)
        curvature = torch.full_like(x, self.weight)
        change = self.link * (x[1:] - x[:-1])
        gradient[1:] += change
        gradient[:-1] -= change
        curvature[1:] += self.link
        curvature[:-1] += self.link
        return gradient, curvature


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
