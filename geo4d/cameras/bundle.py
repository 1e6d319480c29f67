"""Bundle adjustment: cameras, one focal length and points from 2D observations, by Levenberg-Marquardt.

Points are homogeneous unit 4-vectors in the world, so a point at infinity is as ordinary as a near one and a camera
that only turns is not a special case. Points are eliminated (Schur complement); what is left couples only cameras that
share a track, so it is banded and the cost grows linearly with the number of frames.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import (
    MIN_DEPTH,
    BundleState,
    depth_error,
    project_points,
    reprojection_error,
    robust_cost,
)
from geo4d.geometry.poses import so3_exp
from geo4d.optimise.small import cholesky_3x3, solve_3x3, sum_outer, whiten


@dataclass(frozen=True)
class BundleConfig:
    """Settings of one adjustment.

    Attributes:
        num_iterations: at most.
        robust_width: Cauchy width, pixels.
        focal: ``fixed``, one ``shared`` by all cameras, or ``per_frame``.
        focal_prior: (focal in pixels, spread of its logarithm), or None.
        prior_strength: how many pixels-squared of summed robust cost one standard deviation of the prior is worth.
        focal_smoothness: ``per_frame``: spread of the change of log focal from camera to camera.
        radial_prior: spread of the radial coefficient around 0; 0 leaves it as it is.
        with_translation: False holds all camera centres (pure rotation).
        group: cameras per block of points when the Schur complement is formed.
        tolerance: stop when the cost falls by less than this share.
        reliability: also find ``log_focal_spread`` and ``pose_information``, worth two more steps.
    """

    num_iterations: int = 30
    robust_width: float = 1.0
    focal: str = "shared"
    focal_prior: tuple[float, float] | None = None
    prior_strength: float = 1.0
    focal_smoothness: float = 0.01
    radial_prior: float = 0.0
    with_translation: bool = True
    group: int = 12
    tolerance: float = 1e-5
    reliability: bool = True


@dataclass(frozen=True)
class BundleResult:
    """What came out.

    Attributes:
        state: the unknowns.
        cost: robust cost, pixels squared, priors not included.
        total_cost: with priors.
        error: reprojection error of every observation, pixels; infinite behind the camera.
        log_focal_spread: standard deviation of log focal given unit pixel noise, infinite when it was not estimated.
        pose_information: per camera, Schur-complement block of (translation, rotation) in pixels squared per unit;
            zero when it was not asked for.
        num_iterations: steps tried.
    """

    state: BundleState
    cost: float
    total_cost: float
    error: Float[Tensor, " O"]
    log_focal_spread: float
    pose_information: Float[Tensor, "N 6 6"]
    num_iterations: int


class _Structure:
    """Index tables that depend only on who saw what: blocks of points with the cameras that they touch."""

    def __init__(self, observations: Observations, num_cameras: int, num_points: int, group: int) -> None:
        camera, point = observations.camera, observations.point
        first = torch.full((num_points,), num_cameras, dtype=torch.long).scatter_reduce(
            0, point, camera, "amin", include_self=True
        )
        last = torch.zeros(num_points, dtype=torch.long).scatter_reduce(0, point, camera, "amax")
        self.blocks: list[_Block] = []
        local = torch.empty(num_points, dtype=torch.long)
        block_of = first.div(group, rounding_mode="floor")
        seen = torch.zeros(num_points, dtype=torch.bool)
        seen[point] = True
        self.extent = 1
        for b in block_of[seen].unique().tolist():
            members = ((block_of == b) & seen).nonzero()[:, 0]
            low, high = int(first[members].min()), int(last[members].max()) + 1
            local[members] = torch.arange(len(members))
            rows = (block_of[point] == b).nonzero()[:, 0]
            cell = (camera[rows] - low) * len(members) + local[point[rows]]
            self.blocks.append(_Block(members, rows, cell, low, high))
            self.extent = max(self.extent, high - low)


@dataclass(frozen=True)
class _Block:
    """Points whose first cameras are near each other: their observations, by cell of a [cameras, points] table."""

    members: Int[Tensor, " M"]
    rows: Int[Tensor, " R"]
    cell: Int[Tensor, " R"]
    low: int
    high: int


def mirror_of(points: Float[Tensor, "P 4"]) -> Float[Tensor, "P 4"]:
    """Normal v of the reflection that takes each unit vector onto the last axis (Householder).

    The first three columns of 1 - 2 v v^T / v^T v are the directions in which a point may move.
    """
    v = points.clone()
    v[:, 3] += torch.where(points[:, 3] >= 0, 1.0, -1.0)
    return v


def bundle_adjust(
    state: BundleState,
    observations: Observations,
    *,
    fixed: Bool[Tensor, " N"] | None = None,
    config: BundleConfig | None = None,
) -> BundleResult:
    """Minimise the robust reprojection error over cameras, focal length and points.

    Args:
        state: start; cameras in the order of time, so that cameras sharing points are near in index.
        observations: what was seen.
        fixed: cameras that stay; None holds the first. The overall scale is left to the damping.
        config: see ``BundleConfig``.
    Returns:
        the adjusted state with its errors; never worse than the start in robust cost.
    """
    config = config or BundleConfig()
    num_cameras, num_points = len(state.w2c), len(state.points)
    if fixed is None:
        fixed = torch.zeros(num_cameras, dtype=torch.bool)
        fixed[0] = True
    system = NormalEquations(observations, fixed, config, num_cameras, num_points)
    cost = system.cost(state)
    damping = 1e-3
    tried = 0
    for _ in range(config.num_iterations):
        system.linearise(state)
        accepted = False
        gain = 0.0
        for _ in range(5):
            tried += 1
            candidate = system.step(state, damping)
            new_cost = system.cost(candidate) if candidate is not None else math.inf
            if candidate is not None and new_cost < cost:
                gain = (cost - new_cost) / max(cost, 1e-12)
                state, cost, accepted = candidate, new_cost, True
                damping = max(damping * 0.2, 1e-9)
                break
            damping *= 8
        if not accepted or gain < config.tolerance:
            break
    information, spread = torch.zeros(num_cameras, 6, 6, dtype=torch.float64), math.inf
    if config.reliability:
        system.linearise(state)
        information, spread = system.reliability()
    error = reprojection_error(state, observations)
    data_cost = robust_cost(error, observations.weight, config.robust_width)
    return BundleResult(state, data_cost, cost, error, spread, information, tried)


class NormalEquations:
    """The normal equations of one problem: linearise, then solve for as many dampings as needed.

    Columns of the extended Jacobian: the camera's own unknowns (6, or 7 with its focal), the shared focal, the
    shared radial coefficient, the residual. Arrays have the observations (or points) last: all of this is
    products of tiny matrices, which are fast only when written as sums of whole rows.

    Attributes (after ``linearise``):
        W: camera columns times point columns of every observation, [size, 3, O].
        U: camera blocks of the normal matrix, [N, size + 3, size + 3].
        V, w: point blocks and what couples them to the last three columns, [3, 3, P].
    """

    def __init__(
        self,
        observations: Observations,
        fixed: Bool[Tensor, " N"],
        config: BundleConfig,
        num_cameras: int,
        num_points: int,
    ) -> None:
        keep = (observations.weight > 0).nonzero()[:, 0]
        keep = keep[observations.camera[keep].argsort(stable=True)]
        self.observations = observations.select(keep)
        self.per_camera = torch.bincount(self.observations.camera, minlength=num_cameras).tolist()
        self.structure = _Structure(self.observations, num_cameras, num_points, config.group)
        self.config, self.num_cameras, self.num_points = config, num_cameras, num_points
        self.size = 7 if config.focal == "per_frame" else 6
        self.shared = config.focal == "shared"
        self.border = [k for k, on in enumerate((self.shared, config.radial_prior > 0)) if on]
        self.extent = max(self.structure.extent, 2 if self.size == 7 else 1)
        free = torch.ones(num_cameras, self.size, dtype=torch.bool)
        free[fixed, :6] = False
        if not config.with_translation:
            free[:, :3] = False
        self.free = free

    def cost(self, state: BundleState) -> float:
        width = self.config.robust_width
        error = reprojection_error(state, self.observations)
        total = robust_cost(error, self.observations.weight, width)
        if self.observations.log_depth is not None:
            _, camera_points = project_points(state, self.observations)
            depth = depth_error(state, self.observations, camera_points).abs()
            total += robust_cost(depth, self.observations.weight, width)
        if self.config.radial_prior > 0:
            total += self.config.prior_strength * (state.radial / self.config.radial_prior) ** 2
        return total + self._focal_terms(state)[0]

    def _focal_terms(self, state: BundleState) -> tuple[float, Tensor, Tensor, float]:
        """Cost, gradient and diagonal curvature per camera, and the coupling of neighbours."""
        config, log_focal = self.config, state.log_focal
        gradient, curvature = torch.zeros_like(log_focal), torch.zeros_like(log_focal)
        cost, link = 0.0, 0.0
        if config.focal_prior is not None and config.focal != "fixed":
            focal, spread = config.focal_prior
            weight = config.prior_strength / spread**2 / len(log_focal)
            difference = log_focal - math.log(focal)
            curvature += weight
            gradient += weight * difference
            cost += float((weight * difference**2).sum())
        if self.size == 7 and len(log_focal) > 1:
            link = config.prior_strength / config.focal_smoothness**2
            change = log_focal[1:] - log_focal[:-1]
            gradient[1:] += link * change
            gradient[:-1] -= link * change
            curvature[1:] += link
            curvature[:-1] += link
            cost += float((link * change**2).sum())
        return cost, gradient, curvature, link

    def linearise(self, state: BundleState) -> None:
        observations, size = self.observations, self.size
        camera, point = observations.camera, observations.point
        world_to_camera = state.w2c[:, :3].permute(1, 2, 0)[:, :, camera]
        X = state.points.T[:, point]
        p = (world_to_camera * X).sum(1)
        ahead = p[2] > MIN_DEPTH
        z = p[2].clamp_min(MIN_DEPTH)
        plane = p[:2] / z
        radius = plane.square().sum(0)
        stretch = 1 + state.radial * radius
        focal = state.log_focal.exp()[camera]
        uv = focal * stretch * plane
        residual = uv - observations.uv.T
        width = self.config.robust_width
        root = (observations.weight * ahead / (1 + residual.square().sum(0) / width**2)).sqrt()
        rows = 2 if observations.log_depth is None else 3
        d_p = torch.zeros(rows, 3, len(z), dtype=z.dtype)
        scale = focal / z * root
        d_p[:2, :2] = plane[:, None] * plane * (2 * state.radial * scale)
        d_p[0, 0] += stretch * scale
        d_p[1, 1] += stretch * scale
        d_p[:2, 2] = -(d_p[:2, :2] * plane).sum(1)
        if rows == 3:
            assert observations.depth_weight is not None
            depth = depth_error(state, observations, p.T)
            root_depth = (observations.weight * ahead / (1 + depth.square() / width**2)).sqrt()
            root_depth = root_depth * (X[3] > MIN_DEPTH)
            d_p[2, 2] = root_depth * observations.depth_weight / z

        J = torch.zeros(rows, size + 3, len(z), dtype=z.dtype)
        torch.mul(d_p, X[3], out=J[:, :3])
        for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):  # rotations: p cross d_p
            torch.sub(p[i] * d_p[:, j], p[j] * d_p[:, i], out=J[:, 3 + k])
        if size == 7:
            J[:2, 6] = uv * root
        if not bool(self.free.all()):
            J[:, :size] *= self.free.T.to(z.dtype)[:, camera]
        if self.shared:
            J[:2, size] = uv * root
        if self.config.radial_prior > 0:
            J[:2, size + 1] = plane * (focal * radius * root)
        J[:2, -1] = residual * root
        if rows == 3:
            J[2, -1] = depth * root_depth
        d_X = (d_p[:, :, None] * world_to_camera).sum(1)
        if rows == 3:
            # depth is z / w: the homogeneous coordinate itself counts too
            assert observations.depth_weight is not None
            d_X[2, 3] -= root_depth * observations.depth_weight / X[3].clamp_min(MIN_DEPTH)
        mirror = mirror_of(state.points).T
        v, along = mirror[:, point], (2 / mirror.square().sum(0))[point]
        J_point = d_X[:, :3] - ((d_X * v).sum(1) * along)[:, None] * v[:3]
        W = sum_outer(J, J_point)
        self.W = W[:size]
        self.w = torch.zeros(3, 3, self.num_points, dtype=z.dtype).index_add_(2, point, W[size:])
        self.V = torch.zeros(3, 3, self.num_points, dtype=z.dtype).index_add_(
            2, point, sum_outer(J_point, J_point)
        )
        self.U = torch.stack([torch.bmm(j, j.mT).sum(0) for j in J.split(self.per_camera, dim=2)])
        _, gradient, curvature, self.link = self._focal_terms(state)
        if self.shared:
            self.U[:, size, size] += curvature
            self.U[:, size, -1] += gradient
        elif size == 7:
            self.U[:, 6, 6] += curvature
            self.U[:, 6, -1] += gradient
        if self.config.radial_prior > 0:
            weight = self.config.prior_strength / self.config.radial_prior**2
            self.U[0, size + 1, size + 1] += weight
            self.U[0, size + 1, -1] += weight * state.radial

    def reduce(self, damping: float) -> Reduced:
        """Schur complement without the points: block-tridiagonal in runs of ``extent`` cameras, plus a border.

        W V^-1 W^T is formed as (W L^-T)(W L^-T)^T with V = L L^T: one dense product per block of points.
        """
        size, n, extent = self.size, self.num_cameras, self.extent
        num_runs = -(-n // extent)
        run = extent * size
        factor = cholesky_3x3(self.V, damping)
        Z = whiten(self.W, factor[:, self.observations.point])
        z = whiten(self.w, factor)
        corner = self.U[:, size:, size:].sum(0)
        corner[:2, :2].diagonal().mul_(1 + damping)
        corner = corner - z.flatten(1) @ z.flatten(1).T
        U = self.U[:, :size, :size].clone()
        U.diagonal(dim1=1, dim2=2).mul_(1 + damping)
        held = torch.where(self.free, 0.0, 1.0)
        level = self.U[:, :size, :size].diagonal(dim1=1, dim2=2).amax(0).clamp_min(1e-12)
        U.diagonal(dim1=1, dim2=2).add_(held * level + 1e-10 * level)
        diagonal = torch.zeros(num_runs, run, run, dtype=torch.float64)
        below = torch.zeros(max(num_runs - 1, 0), run, run, dtype=torch.float64)
        right = torch.zeros(num_runs * run, 3, dtype=torch.float64)
        right[: n * size] = self.U[:, :size, size:].reshape(n * size, 3)
        at, row = torch.arange(n).div(extent, rounding_mode="floor"), torch.arange(n) % extent
        cells = diagonal.view(num_runs, extent, size, extent, size)
        cells[at, row, :, row] = U
        if self.link:
            inside = at[1:] == at[:-1]
            a, before, after = at[:-1], row[:-1], row[1:]
            cells[a[inside], after[inside], 6, before[inside], 6] -= self.link
            cells[a[inside], before[inside], 6, after[inside], 6] -= self.link
            across = below.view(num_runs - 1, extent, size, extent, size)
            across[a[~inside], after[~inside], 6, before[~inside], 6] -= self.link
        for block in self.structure.blocks:
            cameras, members = block.high - block.low, len(block.members)
            table = torch.zeros(size * 3, cameras * members, dtype=torch.float64)
            seen = Z.reshape(size * 3, -1)[:, block.rows]
            table.scatter_(1, block.cell.expand(size * 3, -1), seen)
            table = table.view(size, 3, cameras, members).permute(2, 0, 1, 3).reshape(cameras * size, -1)
            width = cameras * size
            product = table @ table.T
            right[block.low * size : block.high * size] -= table @ z[:, :, block.members].flatten(1).T
            first_run = block.low // extent
            split = min((first_run + 1) * extent, block.high)
            k, start = (split - block.low) * size, (block.low - first_run * extent) * size
            diagonal[first_run, start : start + k, start : start + k] -= product[:k, :k]
            if split < block.high:
                rest = width - k
                diagonal[first_run + 1, :rest, :rest] -= product[k:, k:]
                below[first_run, :rest, start : start + k] -= product[k:, :k]
        diagonal[-1].diagonal()[(n - (num_runs - 1) * extent) * size :] = 1.0
        return Reduced(diagonal, below, right, corner, factor)

    def step(self, state: BundleState, damping: float) -> BundleState | None:
        reduced = self.reduce(damping)
        solved = solve_block_tridiagonal(reduced.diagonal, reduced.below, reduced.right)
        if solved is None:
            return None
        size, n = self.size, self.num_cameras
        border = torch.zeros(2, dtype=torch.float64)
        free = self.border
        if free:
            left = reduced.corner - reduced.right.T @ solved
            factor, info = torch.linalg.cholesky_ex(left[free][:, free])
            if int(info) != 0:
                return None
            border[free] = torch.cholesky_solve(-left[free][:, 2:], factor)[:, 0].clamp(-0.3, 0.3)
        delta = -solved[:, 2] - solved[:, :2] @ border
        delta_camera = delta[: n * size].reshape(n, size) * self.free
        if not bool(torch.isfinite(delta_camera).all()):
            return None
        camera, point = self.observations.camera, self.observations.point
        pull = (self.W * delta_camera.T.contiguous()[:, camera][:, None]).sum(0)
        back = -self.w[2] - self.w[0] * border[0] - self.w[1] * border[1]
        back.index_add_(1, point, -pull)
        delta_point = solve_3x3(reduced.factor, back)
        mirror = mirror_of(state.points)
        along = 2 * (mirror[:, :3] * delta_point.T).sum(1) / mirror.square().sum(1)
        points = state.points - along[:, None] * mirror
        points[:, :3] += delta_point.T
        points = points / points.norm(dim=1, keepdim=True).clamp_min(1e-12)
        motion = torch.eye(4, dtype=points.dtype).repeat(n, 1, 1)
        motion[:, :3, :3] = so3_exp(delta_camera[:, 3:6])
        motion[:, :3, 3] = delta_camera[:, :3]
        log_focal = state.log_focal + border[0]
        if size == 7:
            log_focal = log_focal + delta_camera[:, 6].clamp(-0.3, 0.3)
        radial = max(-0.5, min(0.5, state.radial + float(border[1])))
        return BundleState(motion @ state.w2c, log_focal, points, radial)

    def reliability(self) -> tuple[Float[Tensor, "N 6 6"], float]:
        """Diagonal blocks of the Schur complement, and the spread of log focal for unit pixel noise."""
        reduced = self.reduce(1e-6)
        size, extent = self.size, self.extent
        blocks = []
        for c in range(self.num_cameras):
            at, row = divmod(c, extent)
            blocks.append(reduced.diagonal[at, row * size : row * size + 6, row * size : row * size + 6])
        spread = math.inf
        if self.shared:
            solved = solve_block_tridiagonal(reduced.diagonal, reduced.below, reduced.right[:, :1])
            if solved is not None:
                left = float(reduced.corner[0, 0] - reduced.right[:, 0] @ solved[:, 0])
                spread = 1 / math.sqrt(left) if left > 0 else math.inf
        return torch.stack(blocks), spread


@dataclass(frozen=True)
class Reduced:
    """The camera system: ``right`` and ``corner`` have the columns (shared focal, radial, residual).

    ``factor``: Cholesky factors of the point blocks.
    """

    diagonal: Float[Tensor, "B M M"]
    below: Float[Tensor, "B1 M M"]
    right: Float[Tensor, "BM 3"]
    corner: Float[Tensor, "3 3"]
    factor: Float[Tensor, "6 P"]


def solve_block_tridiagonal(
    diagonal: Float[Tensor, "B M M"], below: Float[Tensor, "B1 M M"], right: Float[Tensor, "BM R"]
) -> Float[Tensor, "BM R"] | None:
    """Solve a symmetric positive definite block-tridiagonal system; None when it is not positive definite."""
    num, width, _ = diagonal.shape
    rows = right.reshape(num, width, -1).clone()
    factors: list[Tensor] = []
    for k in range(num):
        D = diagonal[k]
        if k:
            carried = torch.linalg.solve_triangular(factors[-1], below[k - 1].T, upper=False)
            D = D - carried.T @ carried
            rows[k] -= carried.T @ rows[k - 1]
        factor, info = torch.linalg.cholesky_ex(D)
        if int(info) != 0:
            return None
        factors.append(factor)
        rows[k] = torch.linalg.solve_triangular(factor, rows[k], upper=False)
    for k in range(num - 1, -1, -1):
        if k + 1 < num:
            carried = torch.linalg.solve_triangular(factors[k], below[k].T, upper=False)
            rows[k] -= carried @ rows[k + 1]
        rows[k] = torch.linalg.solve_triangular(factors[k].T, rows[k], upper=True)
    return rows.reshape(num * width, -1)
