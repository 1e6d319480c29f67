"""How well inverse depths and the focal length are determined, with the errors of all cameras.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, NormalEquations, Reduced, mirror_of
from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import MIN_DEPTH, BundleState
from geo4d.optimise.small import solve_3x3


@dataclass(frozen=True)
class DepthVariance:
    """How well inverse depths are determined, for unit pixel noise; see ``inverse_depth_variance``.

    Attributes:
        inverse_depth: in the reference camera, 1 / unit of the world.
        point: variance if the cameras were exact, (1 / unit)^2 per pixel^2; infinite behind the reference.
        camera: what the errors of the cameras and of the focal length add.
        pixels: root mean square over its observations of how far its picture moves per unit of inverse depth.
        log_focal: variance of the logarithm of the focal length per pixel^2; infinite when it was not estimated.
    """

    inverse_depth: Float[Tensor, " P"]
    point: Float[Tensor, " P"]
    camera: Float[Tensor, " P"]
    pixels: Float[Tensor, " P"]
    log_focal: float


def inverse_depth_variance(
    state: BundleState, observations: Observations, reference: int, config: BundleConfig
) -> DepthVariance:
    """Variance of every point's inverse depth in one camera, with the errors of all cameras; the world's scale is free.

    The full normal matrix is inverted, so the number of cameras should be some tens. With ``focal_prior`` or
    ``radial_prior`` the unknown focal length and distortion count as far as these priors leave them open.

    Args:
        state: a solution.
        observations: of it.
        reference: the camera that is held, whose depths are meant.
        config: as for ``bundle_adjust``; ``prior_strength`` in squares of the noise.
    """
    fixed = torch.zeros(len(state.w2c), dtype=torch.bool)
    fixed[reference] = True
    system = NormalEquations(observations, fixed, config, len(state.w2c), len(state.points))
    system.linearise(state)
    reduced = system.reduce(1e-9)
    inverse, gradient, ahead = _inverse_depth(state, reference)
    factor = _whole_factor(system, reduced, state, reference)
    if factor is None:
        nothing = torch.full((system.num_points,), torch.inf, dtype=torch.float64)
        return DepthVariance(nothing, nothing, nothing, nothing, math.inf)
    moved = solve_3x3(reduced.factor, gradient.contiguous())
    points_alone = (gradient * moved).sum(0)
    coupling = _coupling(system, moved, len(factor))
    by_cameras = torch.cholesky_solve(coupling.T, factor).T.mul(coupling).sum(1)
    focal = math.inf
    if system.shared:
        unit = torch.zeros(len(factor), 1, dtype=torch.float64)
        unit[-2] = 1
        focal = float(torch.cholesky_solve(unit, factor)[-2, 0])
    pixels = _pixels_per_inverse_depth(system.observations, state, reference, inverse)
    unknown = torch.where(ahead, 0.0, torch.inf)
    return DepthVariance(inverse, points_alone + unknown, by_cameras + unknown, pixels, focal)


def _whole_factor(
    system: NormalEquations, reduced: Reduced, state: BundleState, reference: int
) -> Float[Tensor, "M M"] | None:
    """Cholesky factor of the camera system as one dense matrix, its border last; None where it is not positive.

    The scale of the world is free: growing about the reference must not count as an error, so it is held.
    """
    size, n, extent = system.size, system.num_cameras, system.extent
    runs, width = len(reduced.diagonal), extent * size
    dense = torch.zeros(runs * width + 2, runs * width + 2, dtype=torch.float64)
    for k in range(runs):
        here = slice(k * width, (k + 1) * width)
        dense[here, here] = reduced.diagonal[k]
        if k:
            before = slice((k - 1) * width, k * width)
            dense[here, before] = reduced.below[k - 1]
            dense[before, here] = reduced.below[k - 1].T
    for k in (0, 1):
        if k in system.border:
            dense[:-2, k - 2] = dense[k - 2, :-2] = reduced.right[:, k]
            for j in system.border:
                dense[k - 2, j - 2] = reduced.corner[k, j]
        else:
            dense[k - 2, k - 2] = 1.0
    growth = torch.zeros(n, size, dtype=torch.float64)
    growth[:, :3] = _shift_from(state, reference)
    free = torch.zeros(len(dense), dtype=torch.float64)
    free[: n * size] = (growth * system.free).reshape(-1)
    length = float(free.norm())
    if length > 0:
        free = free / length
        dense = dense + dense.diagonal().amax() * torch.outer(free, free)
    factor, info = torch.linalg.cholesky_ex(dense)
    return factor if int(info) == 0 else None


def _shift_from(state: BundleState, reference: int) -> Float[Tensor, "N 3"]:
    """Translation from the axes of the reference camera, turned, to every camera."""
    R, t = state.w2c[:, :3, :3], state.w2c[:, :3, 3]
    return t + R @ -(R[reference].T @ t[reference])


def _inverse_depth(
    state: BundleState, reference: int
) -> tuple[Float[Tensor, " P"], Float[Tensor, "3 P"], Bool[Tensor, " P"]]:
    """Inverse depth in the reference camera, its gradient along the three ways in which a point may move, and whether
    the point lies ahead."""
    row = state.w2c[reference, 2]
    depth = state.points @ row
    ahead = depth > MIN_DEPTH
    depth = torch.where(ahead, depth, 1.0)
    inverse = state.points[:, 3] / depth
    last = torch.zeros(4, dtype=torch.float64)
    last[3] = 1
    slope = (last - inverse[:, None] * row) / depth[:, None]
    mirror = mirror_of(state.points)
    along = 2 * (slope * mirror).sum(1) / mirror.square().sum(1)
    return inverse, (slope[:, :3] - along[:, None] * mirror[:, :3]).T, ahead


def _coupling(system: NormalEquations, moved: Float[Tensor, "3 P"], num_columns: int) -> Float[Tensor, "P M"]:
    """What a change of every inverse depth asks of the unknowns of the cameras and of the border."""
    camera, point, size = system.observations.camera, system.observations.point, system.size
    pull = (system.W * moved[:, point]).sum(1)
    coupling = torch.zeros(system.num_points, num_columns, dtype=torch.float64)
    columns = camera * size + torch.arange(size)[:, None]
    coupling.index_put_((point.expand(size, -1), columns), pull, accumulate=True)
    for k in system.border:
        coupling[:, k - 2] = (system.w[k] * moved).sum(0)
    return coupling


def _pixels_per_inverse_depth(
    observations: Observations, state: BundleState, reference: int, inverse: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """How far the picture of a point moves when its inverse depth in the reference camera changes."""
    camera, point, num_points = observations.camera, observations.point, len(state.points)
    R = state.w2c[:, :3, :3]
    shift = _shift_from(state, reference)
    turned = R @ R[reference].T
    depth = state.points @ state.w2c[reference, 2]
    depth = torch.where(depth > MIN_DEPTH, depth, 1.0)
    ray = (state.w2c[reference, :3] @ state.points.T).T / depth[:, None]
    place = (turned[camera] @ ray[point][..., None])[..., 0] + shift[camera] * inverse[point, None]
    z = place[:, 2].clamp_min(MIN_DEPTH)
    across = shift[camera, :2] - place[:, :2] / z[:, None] * shift[camera, 2:]
    squared = (state.log_focal.exp()[camera] / z).square() * across.square().sum(1)
    count = torch.bincount(point, minlength=num_points).clamp_min(1)
    squared = torch.zeros(num_points, dtype=torch.float64).index_add_(0, point, squared) / count
    return squared.sqrt()
