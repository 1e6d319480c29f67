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

    def select(self, keep: Bool[Tensor, " O"], point: Int[Tensor, " M"] | None = None) -> Observations:
        """Some of the observations, their points renumbered to ``point`` if given."""
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


@dataclass(frozen=True)
class BundleResult:
    """What came out.

    Attributes:
        state: the unknowns.
        cost: robust cost, pixels squared, prior not included.
        error: reprojection error of every observation, pixels; infinite behind the camera.
        log_focal_spread: standard deviation of log focal given unit pixel noise, infinite when it was not estimated.
        pose_information: per camera, Schur-complement block of (translation, rotation) in pixels squared per unit.
        num_iterations: steps tried.
    """

    state: BundleState
    cost: float
    error: Float[Tensor, " O"]
    log_focal_spread: float
    pose_information: Float[Tensor, "N 6 6"]
    num_iterations: int


def project_points(
    state: BundleState, observations: Observations
) -> tuple[Float[Tensor, "O 2"], Float[Tensor, "O 3"]]:
    """Predicted uv, and the (homogeneous) camera-frame points; depth is positive in front of the camera."""
    points = state.points[observations.point]
    camera_points = _times(state.w2c[observations.camera, :3], points[..., None])[..., 0]
    plane = camera_points[:, :2] / camera_points[:, 2:].clamp_min(MIN_DEPTH)
    stretch = 1 + state.radial * plane.square().sum(1, keepdim=True)
    return state.log_focal[observations.camera].exp()[:, None] * stretch * plane, camera_points


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
    error = (uv - observations.uv).norm(dim=1)
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
        self.blocks: list[tuple[Tensor, Tensor, int, int]] = []
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
            self.blocks.append((members, rows, low, high))
            self.extent = max(self.extent, high - low)
        self.local = local


def _tangent_basis(points: Float[Tensor, "P 4"]) -> Float[Tensor, "P 4 3"]:
    """Three directions orthogonal to each unit vector (Householder)."""
    v = points.clone()
    v[:, 3] += torch.where(points[:, 3] >= 0, 1.0, -1.0)
    eye = torch.eye(4, dtype=points.dtype)
    H = eye - 2 * v[:, :, None] * v[:, None, :] / (v * v).sum(1)[:, None, None]
    return H[:, :, :3]


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
    structure = _Structure(observations, num_cameras, num_points, config.group)
    system = _System(observations, structure, fixed, config, num_cameras)
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
    system.linearise(state)
    information, spread = system.reliability()
    error = reprojection_error(state, observations)
    data_cost = robust_cost(error, observations.weight, config.robust_width)
    return BundleResult(state, data_cost, error, spread, information, tried)


class _System:
    """The normal equations of one problem: linearise, then solve for as many dampings as needed.

    Columns of the extended Jacobian: the camera's own unknowns (6, or 7 with its focal), the shared focal, the
    shared radial coefficient, the residual.
    """

    def __init__(
        self,
        observations: Observations,
        structure: _Structure,
        fixed: Bool[Tensor, " N"],
        config: BundleConfig,
        num_cameras: int,
    ) -> None:
        self.observations, self.structure, self.config = observations, structure, config
        self.num_cameras = num_cameras
        self.size = 7 if config.focal == "per_frame" else 6
        self.shared = config.focal == "shared"
        self.extent = max(structure.extent, 2 if self.size == 7 else 1)
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
        observations, size, n = self.observations, self.size, self.num_cameras
        camera, point = observations.camera, observations.point
        uv, p = project_points(state, observations)
        residual = uv - observations.uv
        ahead = p[:, 2] > MIN_DEPTH
        z = p[:, 2].clamp_min(MIN_DEPTH)
        plane = p[:, :2] / z[:, None]
        radius = plane.square().sum(1)
        focal = state.log_focal[camera].exp()
        width = self.config.robust_width
        root = (observations.weight * ahead / (1 + residual.square().sum(1) / width**2)).sqrt()
        depth = depth_error(state, observations, p)
        rows = 2 if observations.log_depth is None else 3
        d_p = torch.zeros(len(z), rows, 3, dtype=z.dtype)
        d_plane = _sum_outer(plane[:, None], plane[:, None]) * (2 * state.radial)
        d_plane.diagonal(dim1=1, dim2=2).add_((1 + state.radial * radius)[:, None])
        d_plane *= (focal / z)[:, None, None]
        d_p[:, :2, :2] = d_plane
        d_p[:, :2, 2] = -(d_plane * plane[:, None]).sum(2)
        d_p[:, :2] *= root[:, None, None]
        root_depth = root
        if rows == 3:
            assert observations.depth_weight is not None
            root_depth = (observations.weight * ahead / (1 + depth.square() / width**2)).sqrt()
            root_depth = root_depth * (state.points[point, 3] > MIN_DEPTH)
            d_p[:, 2, 2] = root_depth * observations.depth_weight / z

        J = torch.zeros(len(z), rows, size + 3, dtype=z.dtype)
        J[..., :3] = d_p * state.points[point, 3, None, None]
        J[..., 3:6] = torch.linalg.cross(p[:, None].expand_as(d_p), d_p)
        if size == 7:
            J[:, :2, 6] = uv * root[:, None]
        J[..., :size] *= self.free[camera][:, None]
        if self.shared:
            J[:, :2, size] = uv * root[:, None]
        if self.config.radial_prior > 0:
            J[:, :2, size + 1] = plane * (focal * radius * root)[:, None]
        J[:, :2, -1] = residual * root[:, None]
        if rows == 3:
            J[:, 2, -1] = depth * root_depth
        basis = _tangent_basis(state.points)
        d_X = _times(d_p, state.w2c[camera, :3])
        if rows == 3:
            # depth is z / w: the homogeneous coordinate itself counts too
            assert observations.depth_weight is not None
            d_X[:, 2, 3] -= (
                root_depth * observations.depth_weight / state.points[point, 3].clamp_min(MIN_DEPTH)
            )
        J_point = _times(d_X, basis[point])
        JJ = _sum_outer(J, J)
        self.W = _sum_outer(J, J_point)
        self.U = torch.zeros(n, size + 3, size + 3, dtype=z.dtype).index_add_(0, camera, JJ)
        self.V = torch.zeros(len(state.points), 3, 3, dtype=z.dtype).index_add_(
            0, point, _sum_outer(J_point, J_point)
        )
        self.w = torch.zeros(len(state.points), 3, 3, dtype=z.dtype).index_add_(0, point, self.W[:, size:])
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
        self.basis = basis

    def _reduce(self, damping: float) -> _Reduced:
        """Schur complement without the points: block-tridiagonal in runs of ``extent`` cameras, plus a border."""
        size, n, extent = self.size, self.num_cameras, self.extent
        num_runs = -(-n // extent)
        run = extent * size
        diagonal = torch.zeros(num_runs, run, run, dtype=torch.float64)
        below = torch.zeros(max(num_runs - 1, 0), run, run, dtype=torch.float64)
        right = torch.zeros(num_runs * run, 3, dtype=torch.float64)
        inverse = _inverse_3x3(self.V, damping)
        Y = _times(self.W, inverse[self.observations.point])
        y = _times(self.w, inverse)
        corner = self.U[:, size:, size:].sum(0)
        corner[:2, :2].diagonal().mul_(1 + damping)
        corner = corner - (y[:, :, None] * self.w[:, None]).sum((0, 3))
        U = self.U[:, :size, :size].clone()
        U.diagonal(dim1=1, dim2=2).mul_(1 + damping)
        held = torch.where(self.free, 0.0, 1.0)
        level = self.U[:, :size, :size].diagonal(dim1=1, dim2=2).amax(0).clamp_min(1e-12)
        U.diagonal(dim1=1, dim2=2).add_(held * level + 1e-10 * level)
        for c in range(n):
            at, row = divmod(c, extent)
            s = slice(row * size, (row + 1) * size)
            diagonal[at, s, s] += U[c]
            right[c * size : (c + 1) * size] += self.U[c, :size, size:]
            if self.link and c + 1 < n:
                next_at, next_row = divmod(c + 1, extent)
                target = diagonal[at] if next_at == at else below[at]
                target[next_row * size + 6, row * size + 6] -= self.link
                if next_at == at:
                    target[row * size + 6, next_row * size + 6] -= self.link
        for members, rows, low, high in self.structure.blocks:
            width = (high - low) * size
            where = self.structure.local[self.observations.point[rows]]
            local_camera = self.observations.camera[rows] - low
            dense_Y = torch.zeros(len(members), high - low, size, 3, dtype=torch.float64)
            dense_W = torch.zeros_like(dense_Y)
            dense_Y[where, local_camera] = Y[rows, :size]
            dense_W[where, local_camera] = self.W[rows, :size]
            flat_Y = dense_Y.reshape(len(members), width, 3).transpose(0, 1).reshape(width, -1)
            flat_W = dense_W.reshape(len(members), width, 3).transpose(0, 1).reshape(width, -1)
            product = flat_Y @ flat_W.T
            edge = flat_Y @ self.w[members].transpose(0, 1).reshape(3, -1).T
            right[low * size : high * size] -= edge
            first_run = low // extent
            split = min((first_run + 1) * extent, high)
            k, start = (split - low) * size, (low - first_run * extent) * size
            diagonal[first_run, start : start + k, start : start + k] -= product[:k, :k]
            if split < high:
                rest = width - k
                diagonal[first_run + 1, :rest, :rest] -= product[k:, k:]
                below[first_run, :rest, start : start + k] -= product[k:, :k]
        for row in range(n - (num_runs - 1) * extent, extent):
            padding = torch.arange(row * size, (row + 1) * size)
            diagonal[-1, padding, padding] = 1.0
        return _Reduced(diagonal, below, right, corner, inverse)

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
        observations = self.observations
        pull = _times(delta_camera[observations.camera][:, None], self.W[:, :size])[:, 0]
        back = -self.w[:, 2] - self.w[:, 0] * border[0] - self.w[:, 1] * border[1]
        back = back.index_add(0, observations.point, -pull)
        delta_point = (reduced.inverse @ back[..., None])[..., 0]
        points = state.points + (self.basis @ delta_point[..., None])[..., 0]
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


# Products of many tiny matrices, written as sums of whole-array products: batched matmul costs ten times as much.


def _sum_outer(a: Float[Tensor, "O k i"], b: Float[Tensor, "O k j"]) -> Float[Tensor, "O i j"]:
    """a^T b."""
    total = a[:, 0, :, None] * b[:, 0, None, :]
    for k in range(1, a.shape[1]):
        total += a[:, k, :, None] * b[:, k, None, :]
    return total


def _times(a: Float[Tensor, "O i k"], b: Float[Tensor, "O k j"]) -> Float[Tensor, "O i j"]:
    """a b."""
    total = a[:, :, :1] * b[:, :1]
    for k in range(1, a.shape[2]):
        total += a[:, :, k : k + 1] * b[:, k : k + 1]
    return total


@dataclass(frozen=True)
class _Reduced:
    """The camera system: ``right`` and ``corner`` have the columns (shared focal, radial, residual)."""

    diagonal: Float[Tensor, "B M M"]
    below: Float[Tensor, "B1 M M"]
    right: Float[Tensor, "BM 3"]
    corner: Float[Tensor, "3 3"]
    inverse: Float[Tensor, "P 3 3"]


def _inverse_3x3(V: Float[Tensor, "P 3 3"], damping: float) -> Float[Tensor, "P 3 3"]:
    """Inverse of damped symmetric 3x3 matrices by cofactors, after scaling the diagonal to one."""
    diagonal = V.diagonal(dim1=1, dim2=2)
    diagonal = diagonal + 1e-8 * diagonal.amax(1, keepdim=True) + 1e-10
    scale = diagonal.rsqrt()
    S = V * scale[:, :, None] * scale[:, None, :]
    d = 1 + damping + 1e-9
    a, b, c = S[:, 0, 1], S[:, 0, 2], S[:, 1, 2]
    xx, yy, zz = d - c * c / d, d - b * b / d, d - a * a / d
    xx, yy, zz = xx * d, yy * d, zz * d
    xy, xz, yz = b * c - a * d, a * c - b * d, a * b - c * d
    determinant = (d * xx + a * xy + b * xz).clamp_min(1e-15)
    inverse = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).reshape(-1, 3, 3)
    return inverse / determinant[:, None, None] * scale[:, :, None] * scale[:, None, :]


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
    rays = observations.uv * (-log_focal[observations.camera]).exp()[:, None]
    P = w2c[observations.camera, :3]
    rows = P[:, :2] - rays[..., None] * P[:, 2:]
    rows = rows * observations.weight.sqrt()[:, None, None]
    normal = torch.zeros(num_points, 4, 4, dtype=rows.dtype).index_add_(0, observations.point, rows.mT @ rows)
    points = torch.linalg.eigh(normal).eigenvectors[..., 0].contiguous()
    depth = (P[:, 2] * points[observations.point]).sum(-1)
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
