"""How well inverse depths and the focal length are determined, with the errors of all cameras.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleProblem, NormalEquations, Reduced, reduce
from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import MIN_DEPTH, BundleState
from geo4d.optimise.manifold import mirror_of, tangent_of
from geo4d.optimise.small import solve_3x3


@dataclass(frozen=True)
class DepthVariance:
    """How well inverse depths are determined, for unit pixel noise; see ``inverse_depth_variance``.

    Attributes:
        inverse_depth: in the reference camera, 1 / unit of the world.
        point: variance if the cameras were exact, (1 / unit)^2 per pixel^2; infinite behind the reference.
        camera: what the errors of the cameras and of the focal length add.
        pixels: root mean square over its observations of how far its picture moves per unit of inverse depth.
        log_focal: variance of the logarithm of the focal length, or of its mean where every camera has its own, per
            pixel^2; infinite when it was not estimated.
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
    problem = BundleProblem(observations, fixed, config, len(state.w2c), len(state.points))
    equations = problem.equations(state, config.robust_width)
    reduced = reduce(equations, 1e-9)
    inverse, gradient, ahead = _inverse_depth(state, reference)
    factor = _whole_factor(problem, reduced, state, reference)
    if factor is None:
        nothing = torch.full((problem.num_points,), torch.inf, dtype=torch.float64)
        return DepthVariance(nothing, nothing, nothing, nothing, math.inf)
    moved = solve_3x3(reduced.factor, gradient.contiguous())
    points_alone = (gradient * moved).sum(0)
    coupling = _coupling(equations, moved, len(factor))
    by_cameras = torch.cholesky_solve(coupling.T, factor).T.mul(coupling).sum(1)
    focal = math.inf
    layout = problem.layout
    if layout.focal is not None:
        mean = torch.zeros(len(factor), 1, dtype=torch.float64)
        if layout.focal < layout.size:
            mean[layout.focal : problem.num_cameras * layout.size : layout.size] = 1 / problem.num_cameras
        else:
            mean[layout.focal - layout.size - layout.num_border] = 1
        focal = float((mean * torch.cholesky_solve(mean, factor)).sum())
    pixels = _pixels_per_inverse_depth(problem.observations, state, reference, inverse)
    unknown = torch.where(ahead, 0.0, torch.inf)
    return DepthVariance(inverse, points_alone + unknown, by_cameras + unknown, pixels, focal)


def _whole_factor(
    problem: BundleProblem, reduced: Reduced, state: BundleState, reference: int
) -> Float[Tensor, "M M"] | None:
    """Cholesky factor of the camera system as one dense matrix, its border last; None where it is not positive.

    The scale of the world is free: growing about the reference must not count as an error, so it is held.
    """
    size, n, border = problem.layout.size, problem.num_cameras, problem.layout.num_border
    runs, width, _ = reduced.diagonal.shape
    whole = runs * width
    dense = torch.zeros(whole + border, whole + border, dtype=torch.float64)
    for k in range(runs):
        here = slice(k * width, (k + 1) * width)
        dense[here, here] = reduced.diagonal[k]
        if k:
            before = slice((k - 1) * width, k * width)
            dense[here, before] = reduced.below[k - 1]
            dense[before, here] = reduced.below[k - 1].T
    dense[:whole, whole:] = reduced.right[:, :border]
    dense[whole:, :whole] = reduced.right[:, :border].T
    dense[whole:, whole:] = reduced.corner[:border, :border]
    growth = torch.zeros(n, size, dtype=torch.float64)
    growth[:, :3] = _shift_from(state, reference)
    free = torch.zeros(len(dense), dtype=torch.float64)
    free[: n * size] = (growth * problem.free).reshape(-1)
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
    mirror = mirror_of(state.points).T
    return inverse, tangent_of(slope.T[None], mirror, 2 / mirror.square().sum(0))[0], ahead


def _coupling(
    equations: NormalEquations, moved: Float[Tensor, "3 P"], num_columns: int
) -> Float[Tensor, "P M"]:
    """What a change of every inverse depth asks of the unknowns of the cameras and of the border."""
    problem, size = equations.problem, equations.problem.layout.size
    camera, point, border = problem.observations.camera, problem.observations.point, problem.layout.num_border
    pull = equations.to_cameras(moved)
    coupling = torch.zeros(problem.num_points, num_columns, dtype=torch.float64)
    columns = camera * size + torch.arange(size)[:, None]
    coupling.index_put_((point.expand(size, -1), columns), pull, accumulate=True)
    coupling[:, num_columns - border :] = (equations.w[:border] * moved).sum(1).T
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
