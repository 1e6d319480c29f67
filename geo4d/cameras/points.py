"""Points from the cameras that saw them, and how well they fit.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.observations import Observations
from geo4d.cameras.rotations import bearing
from geo4d.cameras.terms import AT_ONCE, BundleState, reprojection_error, rescale
from geo4d.cameras.thresholds import GOOD_SHARE, LEAST_NOISE
from geo4d.optimise.small import sum_outer


def triangulate(
    w2c: Float[Tensor, "N 4 4"],
    log_focal: Float[Tensor, " N"],
    observations: Observations,
    num_points: int,
) -> Float[Tensor, "P 4"]:
    """Homogeneous points from all their observations, linear, in front of most of their cameras.

    The squared algebraic errors are divided by what noise of the pictures adds to them, which grows with depth: their
    plain sum is least for a point that is too near, and the less a track tells the nearer it comes out.

    Points without observations come back as the direction +z at infinity.

    Source: Taubin, Estimation of planar curves, surfaces and nonplanar space curves, 1991 (the ratio of quadratic forms).
    """
    world_to_camera, per_focal = w2c[:, :3].permute(1, 2, 0), (-log_focal).exp()
    errors = torch.zeros(4, 4, num_points, dtype=w2c.dtype)
    noise = torch.zeros(4, 4, num_points, dtype=w2c.dtype)
    for _, some in observations.slices(AT_ONCE):
        rays = some.uv.T * per_focal[some.camera]
        P = world_to_camera[:, :, some.camera] * some.weight.sqrt()
        rows = P[:2] - rays[:, None] * P[2]
        errors.index_add_(2, some.point, sum_outer(rows, rows))
        noise.index_add_(2, some.point, sum_outer(P[2:], P[2:]))
    points = _least_ratio(errors.permute(2, 0, 1), noise.permute(2, 0, 1))
    votes = torch.zeros(num_points, dtype=w2c.dtype)
    for _, some in observations.slices(AT_ONCE):
        depth = (world_to_camera[2][:, some.camera] * points.T[:, some.point]).sum(0)
        votes.index_add_(0, some.point, depth.sign() * some.weight)
    points = points * torch.where(votes < 0, -1.0, 1.0)[:, None]
    seen = torch.zeros(num_points, dtype=torch.bool)
    seen[observations.point] = True
    return torch.where(seen[:, None], points, points.new_tensor([0, 0, 1.0, 0]))


def _least_ratio(above: Float[Tensor, "P 4 4"], below: Float[Tensor, "P 4 4"]) -> Float[Tensor, "P 4"]:
    """Unit vectors p with the least p^T above p / p^T below p; of equal ones that with the least p^T p."""
    # Where nothing tells how far a point is, both forms are zero along its distance: the least bit that is added above
    # leaves it at infinity.
    least = 1e-12 * above.diagonal(dim1=1, dim2=2).sum(1) + 1e-30
    factor = torch.linalg.cholesky(above + least[:, None, None] * torch.eye(4, dtype=above.dtype))
    half = torch.linalg.solve_triangular(factor, below, upper=False)
    ratio = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    found = torch.linalg.eigh(0.5 * (ratio + ratio.mT)).eigenvectors[..., -1:]
    points = torch.linalg.solve_triangular(factor.mT, found, upper=True)[..., 0]
    return (points / points.norm(dim=1, keepdim=True)).contiguous()


def points_at_one_distance(
    w2c: Float[Tensor, "N 4 4"], focal: float, observations: Observations, num_points: int
) -> Float[Tensor, "P 4"]:
    """Every point on the ray of its first observation, one unit away."""
    first = torch.full((num_points,), len(observations.point), dtype=torch.long)
    first.scatter_reduce_(0, observations.point, torch.arange(len(observations.point)), "amin")
    seen = first < len(observations.point)
    row = first.clamp_max(max(len(observations.point) - 1, 0))
    direction = bearing(observations.uv[row], focal)
    R, t = w2c[observations.camera[row], :3, :3], w2c[observations.camera[row], :3, 3]
    world = (R.mT @ (direction - t)[..., None])[..., 0]
    points = torch.cat([world, torch.ones_like(world[:, :1])], 1)
    points = torch.where(seen[:, None], points, points.new_tensor([0, 0, 1.0, 1.0]))
    return points / points.norm(dim=1, keepdim=True)


def normalise_scale(state: BundleState, observations: Observations) -> BundleState:
    """The same solution with the median depth of the observations at 1."""
    p = (state.w2c[observations.camera, :3] @ state.points[observations.point][..., None])[..., 0]
    w = state.points[observations.point, 3]
    usable = (p[:, 2] > 0) & (w > 1e-9)
    if int(usable.sum()) < 8:
        return state
    depth = (p[usable, 2] / w[usable]).median()
    return rescale(state, float(1 / depth))


def point_error(
    error: Float[Tensor, " O"], observations: Observations, num_points: int
) -> Float[Tensor, " P"]:
    """Error of every point as a standard deviation per coordinate: its own three unknowns are accounted for.

    Single errors are cut at 100 pixels; infinite for points seen less than twice.
    """
    count = torch.bincount(observations.point, minlength=num_points).double()
    total = torch.zeros(num_points, dtype=torch.float64)
    total.index_add_(0, observations.point, error.clamp_max(100.0).square())
    return torch.where(count > 1, (total / (2 * count - 3).clamp_min(1)).sqrt(), torch.inf)


def renew_points(state: BundleState, observations: Observations) -> tuple[BundleState, Float[Tensor, " P"]]:
    """Points triangulated anew where that explains them better; and the error of every point, pixels."""
    num_points = len(state.points)
    old = point_error(reprojection_error(state, observations), observations, num_points)
    again = triangulate(state.w2c, state.log_focal, observations, num_points)
    fresh = replace(state, points=again)
    new = point_error(reprojection_error(fresh, observations), observations, num_points)
    better = new < old
    points = torch.where(better[:, None], again, state.points)
    return replace(state, points=points), torch.where(better, new, old)


def level_of(error: Float[Tensor, " P"], observations: Observations, area: Float[Tensor, " P"]) -> float:
    """Error below which ``GOOD_SHARE`` of the area lies, of points seen at least three times."""
    often = torch.bincount(observations.point, minlength=len(error)) >= 3
    usable = often & torch.isfinite(error)
    if not bool(usable.any()):
        return LEAST_NOISE
    order = error[usable].argsort()
    total = area[usable][order].cumsum(0)
    at = int(torch.searchsorted(total, GOOD_SHARE * total[-1]))
    return max(LEAST_NOISE, float(error[usable][order][min(at, len(order) - 1)]))
