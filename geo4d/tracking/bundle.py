"""Bundle adjustment: cameras, one focal length and points from 2D observations, by Levenberg-Marquardt.

Points are homogeneous unit 4-vectors in the world, so a point at infinity is as ordinary as a near one and a camera
that only turns is not a special case. Points are eliminated (Schur complement); what is left couples only cameras that
share a track, so it is banded and the cost grows linearly with the number of frames.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.geometry.poses import nearest_rotation, so3_exp

MIN_DEPTH = 1e-6
_BEHIND = 60.0  # squared, scaled error that a point behind its camera counts as


@dataclass(frozen=True)
class Observations:
    """Where points were seen.

    Attributes:
        camera, point: who saw what.
        uv: pixels relative to the principal point.
        weight: >= 0.
        log_depth: logarithm of a measured z-depth, or None; arbitrary where ``depth_weight`` is 0.
        depth_weight: pixels that an error of 1 in log depth counts as.
    """

    camera: Int[Tensor, " O"]
    point: Int[Tensor, " O"]
    uv: Float[Tensor, "O 2"]
    weight: Float[Tensor, " O"]
    log_depth: Float[Tensor, " O"] | None = None
    depth_weight: Float[Tensor, " O"] | None = None

    def select(
        self, keep: Bool[Tensor, " O"] | Int[Tensor, " M"], point: Int[Tensor, " M"] | None = None
    ) -> Observations:
        """Some of the observations (a mask, or rows), their points renumbered to ``point`` if given."""
        return Observations(
            self.camera[keep],
            self.point[keep] if point is None else point,
            self.uv[keep],
            self.weight[keep],
            None if self.log_depth is None else self.log_depth[keep],
            None if self.depth_weight is None else self.depth_weight[keep],
        )


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


def _mirror(points: Float[Tensor, "P 4"]) -> Float[Tensor, "P 4"]:
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
    system = _System(observations, fixed, config, num_cameras, num_points)
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


class _System:
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
        mirror = _mirror(state.points).T
        v, along = mirror[:, point], (2 / mirror.square().sum(0))[point]
        J_point = d_X[:, :3] - ((d_X * v).sum(1) * along)[:, None] * v[:3]
        W = _sum_outer(J, J_point)
        self.W = W[:size]
        self.w = torch.zeros(3, 3, self.num_points, dtype=z.dtype).index_add_(2, point, W[size:])
        self.V = torch.zeros(3, 3, self.num_points, dtype=z.dtype).index_add_(
            2, point, _sum_outer(J_point, J_point)
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

    def _reduce(self, damping: float) -> _Reduced:
        """Schur complement without the points: block-tridiagonal in runs of ``extent`` cameras, plus a border.

        W V^-1 W^T is formed as (W L^-T)(W L^-T)^T with V = L L^T: one dense product per block of points.
        """
        size, n, extent = self.size, self.num_cameras, self.extent
        num_runs = -(-n // extent)
        run = extent * size
        factor = _cholesky_3x3(self.V, damping)
        Z = _whiten(self.W, factor[:, self.observations.point])
        z = _whiten(self.w, factor)
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
        return _Reduced(diagonal, below, right, corner, factor)

    def step(self, state: BundleState, damping: float) -> BundleState | None:
        reduced = self._reduce(damping)
        solved = _solve_block_tridiagonal(reduced.diagonal, reduced.below, reduced.right)
        if solved is None:
            return None
        size, n = self.size, self.num_cameras
        border = torch.zeros(2, dtype=torch.float64)
        free = [k for k, on in enumerate((self.shared, self.config.radial_prior > 0)) if on]
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
        delta_point = _solve_3x3(reduced.factor, back)
        mirror = _mirror(state.points)
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
        reduced = self._reduce(1e-6)
        size, extent = self.size, self.extent
        blocks = []
        for c in range(self.num_cameras):
            at, row = divmod(c, extent)
            blocks.append(reduced.diagonal[at, row * size : row * size + 6, row * size : row * size + 6])
        spread = math.inf
        if self.shared:
            solved = _solve_block_tridiagonal(reduced.diagonal, reduced.below, reduced.right[:, :1])
            if solved is not None:
                left = float(reduced.corner[0, 0] - reduced.right[:, 0] @ solved[:, 0])
                spread = 1 / math.sqrt(left) if left > 0 else math.inf
        return torch.stack(blocks), spread

    def inverse_depth_variance(self, state: BundleState, reference: int) -> DepthVariance:
        """See ``inverse_depth_variance``."""
        self.linearise(state)
        reduced = self._reduce(1e-9)
        size, n, extent = self.size, self.num_cameras, self.extent
        runs, width = len(reduced.diagonal), extent * size
        dense = torch.zeros(runs * width + 2, runs * width + 2, dtype=torch.float64)
        for k in range(runs):
            here = slice(k * width, (k + 1) * width)
            dense[here, here] = reduced.diagonal[k]
            if k:
                before = slice((k - 1) * width, k * width)
                dense[here, before] = reduced.below[k - 1]
                dense[before, here] = reduced.below[k - 1].T
        border = [k for k, on in enumerate((self.shared, self.config.radial_prior > 0)) if on]
        for k in (0, 1):
            if k in border:
                dense[:-2, k - 2] = dense[k - 2, :-2] = reduced.right[:, k]
                for j in border:
                    dense[k - 2, j - 2] = reduced.corner[k, j]
            else:
                dense[k - 2, k - 2] = 1.0
        # The scale of the world is free: growing about the reference must not count as an error.
        R, t = state.w2c[:, :3, :3], state.w2c[:, :3, 3]
        centre = -(R[reference].T @ t[reference])
        growth = torch.zeros(n, size, dtype=torch.float64)
        growth[:, :3] = t + R @ centre
        free = torch.zeros(len(dense), dtype=torch.float64)
        free[: n * size] = (growth * self.free).reshape(-1)
        length = float(free.norm())
        if length > 0:
            free = free / length
            dense = dense + dense.diagonal().amax() * torch.outer(free, free)
        factor, info = torch.linalg.cholesky_ex(dense)
        if int(info) != 0:
            nothing = torch.full((self.num_points,), torch.inf, dtype=torch.float64)
            return DepthVariance(nothing, nothing, nothing, nothing, math.inf)
        # Gradient of the inverse depth in the reference camera along the three ways in which a point may move.
        row = state.w2c[reference, 2]
        depth = state.points @ row
        ahead = depth > MIN_DEPTH
        depth = torch.where(ahead, depth, 1.0)
        inverse = state.points[:, 3] / depth
        last = torch.zeros(4, dtype=torch.float64)
        last[3] = 1
        slope = (last - inverse[:, None] * row) / depth[:, None]
        mirror = _mirror(state.points)
        along = 2 * (slope * mirror).sum(1) / mirror.square().sum(1)
        gradient = (slope[:, :3] - along[:, None] * mirror[:, :3]).T
        moved = _solve_3x3(reduced.factor, gradient.contiguous())
        points_alone = (gradient * moved).sum(0)
        camera, point = self.observations.camera, self.observations.point
        pull = (self.W * moved[:, point]).sum(1)
        coupling = torch.zeros(self.num_points, len(dense), dtype=torch.float64)
        columns = camera * size + torch.arange(size)[:, None]
        coupling.index_put_((point.expand(size, -1), columns), pull, accumulate=True)
        for k in border:
            coupling[:, k - 2] = (self.w[k] * moved).sum(0)
        by_cameras = torch.cholesky_solve(coupling.T, factor).T.mul(coupling).sum(1)
        focal = math.inf
        if self.shared:
            unit = torch.zeros(len(dense), 1, dtype=torch.float64)
            unit[-2] = 1
            focal = float(torch.cholesky_solve(unit, factor)[-2, 0])
        # How far the picture of a point moves when its inverse depth in the reference camera changes.
        turned = R @ R[reference].T
        shift = t + R @ centre
        ray = (state.w2c[reference, :3] @ state.points.T).T / depth[:, None]
        place = (turned[camera] @ ray[point][..., None])[..., 0] + shift[camera] * inverse[point, None]
        z = place[:, 2].clamp_min(MIN_DEPTH)
        across = shift[camera, :2] - place[:, :2] / z[:, None] * shift[camera, 2:]
        squared = (state.log_focal.exp()[camera] / z).square() * across.square().sum(1)
        count = torch.bincount(point, minlength=self.num_points).clamp_min(1)
        squared = torch.zeros(self.num_points, dtype=torch.float64).index_add_(0, point, squared) / count
        unknown = torch.where(ahead, 0.0, torch.inf)
        return DepthVariance(inverse, points_alone + unknown, by_cameras + unknown, squared.sqrt(), focal)


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
    system = _System(observations, fixed, config, len(state.w2c), len(state.points))
    return system.inverse_depth_variance(state, reference)


def _sum_outer(a: Float[Tensor, "k i O"], b: Float[Tensor, "k j O"]) -> Float[Tensor, "i j O"]:
    """a^T b of every column."""
    total = a[0, :, None] * b[0]
    for k in range(1, len(a)):
        total.addcmul_(a[k, :, None], b[k])
    return total


@dataclass(frozen=True)
class _Reduced:
    """The camera system: ``right`` and ``corner`` have the columns (shared focal, radial, residual).

    ``factor``: Cholesky factors of the point blocks.
    """

    diagonal: Float[Tensor, "B M M"]
    below: Float[Tensor, "B1 M M"]
    right: Float[Tensor, "BM 3"]
    corner: Float[Tensor, "3 3"]
    factor: Float[Tensor, "6 P"]


def _cholesky_3x3(V: Float[Tensor, "3 3 P"], damping: float) -> Float[Tensor, "6 P"]:
    """Lower Cholesky factors (xx, yx, zx, yy, zy, zz) of symmetric matrices with damped diagonals."""
    diagonal = torch.stack([V[0, 0], V[1, 1], V[2, 2]])
    diagonal = diagonal + 1e-8 * diagonal.amax(0) + 1e-10
    scale = diagonal.sqrt()
    d = 1 + damping + 1e-9  # of the matrices scaled to a diagonal of one
    xx = math.sqrt(d)
    yx, zx = V[1, 0] / (scale[0] * scale[1] * xx), V[2, 0] / (scale[0] * scale[2] * xx)
    yy = (d - yx * yx).clamp_min(1e-12).sqrt()
    zy = (V[2, 1] / (scale[1] * scale[2]) - yx * zx) / yy
    zz = (d - zx * zx - zy * zy).clamp_min(1e-12).sqrt()
    x, y, z = scale
    return torch.stack([x * xx, y * yx, z * zx, y * yy, z * zy, z * zz])


def _whiten(rows: Float[Tensor, "k 3 O"], factor: Float[Tensor, "6 O"]) -> Float[Tensor, "k 3 O"]:
    """rows L^-T."""
    xx, yx, zx, yy, zy, zz = factor
    x = rows[:, 0] / xx
    y = (rows[:, 1] - x * yx) / yy
    z = (rows[:, 2] - x * zx - y * zy) / zz
    return torch.stack([x, y, z], 1)


def _solve_3x3(factor: Float[Tensor, "6 P"], right: Float[Tensor, "3 P"]) -> Float[Tensor, "3 P"]:
    """(L L^T)^-1 right."""
    xx, yx, zx, yy, zy, zz = factor
    x, y, z = _whiten(right[None], factor)[0]
    z = z / zz
    y = (y - zy * z) / yy
    x = (x - yx * y - zx * z) / xx
    return torch.stack([x, y, z])


def _solve_block_tridiagonal(
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


def triangulate(
    w2c: Float[Tensor, "N 4 4"],
    log_focal: Float[Tensor, " N"],
    observations: Observations,
    num_points: int,
) -> Float[Tensor, "P 4"]:
    """Homogeneous points from all their observations, linear, in front of most of their cameras.

    Points without observations come back as the direction +z at infinity.
    """
    rays = observations.uv.T * (-log_focal).exp()[observations.camera]
    P = w2c[:, :3].permute(1, 2, 0)[:, :, observations.camera]
    rows = (P[:2] - rays[:, None] * P[2]) * observations.weight.sqrt()
    normal = torch.zeros(4, 4, num_points, dtype=rows.dtype)
    normal.index_add_(2, observations.point, _sum_outer(rows, rows))
    points = torch.linalg.eigh(normal.permute(2, 0, 1)).eigenvectors[..., 0].contiguous()
    depth = (P[2] * points.T[:, observations.point]).sum(0)
    votes = torch.zeros(num_points, dtype=rows.dtype).index_add_(
        0, observations.point, depth.sign() * observations.weight
    )
    points = points * torch.where(votes < 0, -1.0, 1.0)[:, None]
    seen = torch.zeros(num_points, dtype=torch.bool)
    seen[observations.point] = True
    return torch.where(seen[:, None], points, points.new_tensor([0, 0, 1.0, 0]))


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
