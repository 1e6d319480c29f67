"""Bundle adjustment: cameras, one focal length and points from 2D observations, by Levenberg-Marquardt.

Points are homogeneous unit 4-vectors in the world, so a point at infinity is as ordinary as a near one and a camera
that only turns is not a special case. Points are eliminated (Schur complement); what is left couples only cameras that
share a track, so it is banded and the cost grows linearly with the number of frames.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded
from torch import Tensor

from geo4d.geometry.poses import nearest_rotation, skew, so3_exp

MIN_DEPTH = 1e-6
_BEHIND = 60.0  # squared, scaled error that a point behind its camera counts as


@dataclass(frozen=True)
class Observations:
    """Where points were seen.

    Attributes:
        camera, point: who saw what.
        uv: pixels relative to the principal point.
        weight: >= 0.
    """

    camera: Int[Tensor, " O"]
    point: Int[Tensor, " O"]
    uv: Float[Tensor, "O 2"]
    weight: Float[Tensor, " O"]

    def select(self, keep: Bool[Tensor, " O"]) -> Observations:
        return Observations(self.camera[keep], self.point[keep], self.uv[keep], self.weight[keep])


@dataclass(frozen=True)
class BundleState:
    """The unknowns, float64.

    Attributes:
        w2c: world to camera.
        log_focal: natural logarithm of the focal length in pixels, per camera.
        points: homogeneous, unit length; the sign is such that the point lies in front of its cameras.
    """

    w2c: Float[Tensor, "N 4 4"]
    log_focal: Float[Tensor, " N"]
    points: Float[Tensor, "P 4"]


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
    pose = state.w2c[observations.camera]
    points = state.points[observations.point]
    camera_points = (pose[:, :3] @ points[..., None])[..., 0]
    z = camera_points[:, 2:].clamp_min(MIN_DEPTH)
    return state.log_focal[observations.camera].exp()[:, None] * camera_points[:, :2] / z, camera_points


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
        self.half_bandwidth = 0
        for b in block_of[seen].unique().tolist():
            members = ((block_of == b) & seen).nonzero()[:, 0]
            low, high = int(first[members].min()), int(last[members].max()) + 1
            local[members] = torch.arange(len(members))
            rows = (block_of[point] == b).nonzero()[:, 0]
            self.blocks.append((members, rows, low, high))
            self.half_bandwidth = max(self.half_bandwidth, high - low - 1)
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
    """The normal equations of one problem: linearise, then solve for as many dampings as needed."""

    def __init__(
        self,
        observations: Observations,
        structure: _Structure,
        fixed: Tensor,
        config: BundleConfig,
        num_cameras: int,
    ) -> None:
        self.observations, self.structure, self.fixed, self.config = observations, structure, fixed, config
        self.num_cameras = num_cameras
        self.size = 7 if config.focal == "per_frame" else 6
        self.shared = config.focal == "shared"
        self.half_bandwidth = max(structure.half_bandwidth, 1 if self.size == 7 and num_cameras > 1 else 0)
        free = torch.ones(num_cameras, self.size, dtype=torch.bool)
        free[fixed, :6] = False
        if not config.with_translation:
            free[:, :3] = False
        self.free = free.reshape(-1)

    def cost(self, state: BundleState) -> float:
        width = self.config.robust_width
        total = robust_cost(reprojection_error(state, self.observations), self.observations.weight, width)
        _, prior_cost, _, _ = self._focal_prior(state)
        return total + prior_cost

    def _focal_prior(self, state: BundleState) -> tuple[Tensor, float, Tensor, Tensor]:
        """Strength, cost, gradient (per camera) and curvature coupling of the focal terms."""
        config, log_focal = self.config, state.log_focal
        gradient = torch.zeros_like(log_focal)
        strength = torch.zeros_like(log_focal)
        cost = 0.0
        if config.focal_prior is not None and config.focal != "fixed":
            focal, spread = config.focal_prior
            weight = config.prior_strength / spread**2 / len(log_focal)
            difference = log_focal - math.log(focal)
            strength += weight
            gradient += weight * difference
            cost += float((weight * difference**2).sum())
        link = torch.zeros(())
        if self.size == 7 and len(log_focal) > 1:
            link = torch.tensor(config.prior_strength / config.focal_smoothness**2, dtype=log_focal.dtype)
            change = log_focal[1:] - log_focal[:-1]
            gradient[1:] += link * change
            gradient[:-1] -= link * change
            cost += float((link * change**2).sum())
        return strength, cost, gradient, link

    def linearise(self, state: BundleState) -> None:
        observations, config = self.observations, self.config
        camera, point = observations.camera, observations.point
        uv, p = project_points(state, observations)
        residual = uv - observations.uv
        ahead = p[:, 2] > MIN_DEPTH
        z = p[:, 2].clamp_min(MIN_DEPTH)
        focal = state.log_focal[camera].exp()
        weight = observations.weight * ahead / (1 + residual.square().sum(1) / config.robust_width**2)
        d_p = torch.zeros(len(z), 2, 3, dtype=z.dtype)
        d_p[:, 0, 0] = d_p[:, 1, 1] = focal / z
        d_p[:, :, 2] = -uv / z[:, None]
        X = state.points[point]
        J_camera = torch.cat([d_p * X[:, 3, None, None], -(d_p @ skew(p))], -1)
        if self.size == 7:
            J_camera = torch.cat([J_camera, uv[..., None]], -1)
        basis = _tangent_basis(state.points)
        J_point = d_p @ (state.w2c[camera, :3] @ basis[point])
        root = weight.sqrt()[:, None, None]
        J_camera = (J_camera * root).flatten(0, 0)
        J_camera = J_camera * self.free.reshape(self.num_cameras, 1, self.size)[camera]
        J_point = J_point * root
        J_focal = (uv * root[:, 0]) if self.shared else torch.zeros_like(uv)
        r = residual * root[:, 0]

        n, size = self.num_cameras, self.size
        self.U = torch.zeros(n, size, size, dtype=z.dtype).index_add_(0, camera, J_camera.mT @ J_camera)
        self.g = torch.zeros(n, size, dtype=z.dtype).index_add_(
            0, camera, (J_camera.mT @ r[..., None])[..., 0]
        )
        num_points = len(state.points)
        self.V = torch.zeros(num_points, 3, 3, dtype=z.dtype).index_add_(0, point, J_point.mT @ J_point)
        self.h = torch.zeros(num_points, 3, dtype=z.dtype).index_add_(
            0, point, (J_point.mT @ r[..., None])[..., 0]
        )
        self.W = J_camera.mT @ J_point
        self.uf = torch.zeros(n, size, dtype=z.dtype).index_add_(
            0, camera, (J_camera.mT @ J_focal[..., None])[..., 0]
        )
        self.wf = torch.zeros(num_points, 3, dtype=z.dtype).index_add_(
            0, point, (J_point.mT @ J_focal[..., None])[..., 0]
        )
        self.ff = float((J_focal * J_focal).sum())
        self.gf = float((J_focal * r).sum())
        strength, _, gradient, link = self._focal_prior(state)
        if self.shared:
            self.ff += float(strength.sum())
            self.gf += float(gradient.sum())
        elif size == 7:
            self.U[:, 6, 6] += strength
            self.g[:, 6] += gradient
            if n > 1:
                self.U[1:, 6, 6] += link
                self.U[:-1, 6, 6] += link
        self.link = float(link)
        self.basis = basis

    def _reduced(self, damping: float) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, float, Tensor]:
        """Banded Schur complement (lower form), border column, corner, right sides and inverse point factors."""
        size, n = self.size, self.num_cameras
        diagonal = self.V.diagonal(dim1=1, dim2=2)
        floor = 1e-8 * diagonal.amax(1, keepdim=True) + 1e-10
        V = self.V + torch.diag_embed(damping * diagonal + floor)
        factor = torch.linalg.cholesky(V)
        dims = n * size
        band = np.zeros(((self.half_bandwidth + 1) * size, dims))
        border = self.uf.reshape(-1).clone()
        right = self.g.reshape(-1).clone()
        corner, right_focal = self.ff * (1 + damping) + 1e-9, self.gf
        eye = torch.eye(size, dtype=torch.bool)
        U = self.U + torch.where(eye, damping * self.U, 0.0)
        for members, rows, low, high in self.structure.blocks:
            width = (high - low) * size
            W = torch.zeros(len(members), high - low, size, 3, dtype=V.dtype)
            where = self.structure.local[self.observations.point[rows]]
            W.index_put_((where, self.observations.camera[rows] - low), self.W[rows], accumulate=True)
            # A = W L^-T, so that A A^T = W V^-1 W^T.
            stacked = torch.cat(
                [W.reshape(len(members), width, 3), self.wf[members][:, None], self.h[members][:, None]], 1
            )
            A = torch.linalg.solve_triangular(factor[members], stacked.mT, upper=False).mT
            A = A.permute(1, 0, 2).reshape(width + 2, -1)
            product = A @ A[:, :].T
            _add_to_band(band, -product[:width, :width].numpy(), low * size)
            part = slice(low * size, high * size)
            border[part] -= product[:width, width]
            right[part] -= product[:width, width + 1]
            corner -= float(product[width, width])
            right_focal -= float(product[width, width + 1])
        for i in range(size):
            for j in range(i + 1):
                band[i - j, j::size] += U[:, i, j].numpy()
        if size == 7 and n > 1:
            band[size, 6 : (n - 1) * size : size] -= self.link
        held = ~self.free.numpy()
        band[0, held] = 1.0
        band[0] += 1e-9 * max(1e-12, float(np.median(band[0])))
        return band, border.numpy(), corner, right.numpy(), right_focal, factor

    def _solve(self, band: np.ndarray, right: np.ndarray) -> np.ndarray | None:
        try:
            return cho_solve_banded((cholesky_banded(band, lower=True), True), right)
        except LinAlgError:
            return None

    def step(self, state: BundleState, damping: float) -> BundleState | None:
        band, border, corner, right, right_focal, factor = self._reduced(damping)
        solved = self._solve(band, np.stack([right, border], 1))
        if solved is None:
            return None
        focal_step = 0.0
        delta = solved[:, 0]
        if self.shared:
            corner = corner - float(border @ solved[:, 1])
            if corner <= 0:
                return None
            focal_step = -(right_focal - float(border @ solved[:, 0])) / corner
            focal_step = max(-0.5, min(0.5, focal_step))
            delta = solved[:, 0] + solved[:, 1] * focal_step
        delta_camera = -torch.from_numpy(delta).reshape(self.num_cameras, self.size)
        if not bool(torch.isfinite(delta_camera).all()):
            return None
        observations = self.observations
        back = -self.h - self.wf * focal_step
        back = back.index_add(
            0, observations.point, -(self.W.mT @ delta_camera[observations.camera][..., None])[..., 0]
        )
        delta_point = torch.cholesky_solve(back[..., None], factor)
        points = state.points + (self.basis @ delta_point)[..., 0]
        points = points / points.norm(dim=1, keepdim=True).clamp_min(1e-12)
        motion = torch.eye(4, dtype=points.dtype).repeat(self.num_cameras, 1, 1)
        motion[:, :3, :3] = so3_exp(delta_camera[:, 3:6])
        motion[:, :3, 3] = delta_camera[:, :3]
        log_focal = state.log_focal + focal_step
        if self.size == 7:
            log_focal = log_focal + delta_camera[:, 6].clamp(-0.5, 0.5)
        return BundleState(motion @ state.w2c, log_focal, points)

    def reliability(self) -> tuple[Tensor, float]:
        """Diagonal blocks of the Schur complement, and the spread of log focal for unit pixel noise."""
        band, border, corner, _, _, _ = self._reduced(1e-6)
        size = self.size
        information = torch.zeros(self.num_cameras, 6, 6, dtype=torch.float64)
        for i in range(6):
            for j in range(i + 1):
                information[:, i, j] = information[:, j, i] = torch.from_numpy(band[i - j, j::size].copy())
        spread = math.inf
        if self.shared:
            solved = self._solve(band, border[:, None])
            if solved is not None:
                left = corner - float(border @ solved[:, 0])
                spread = 1 / math.sqrt(left) if left > 0 else math.inf
        return information, spread


_TRIANGLES: dict[int, tuple[np.ndarray, np.ndarray]] = {}


def _add_to_band(band: np.ndarray, block: np.ndarray, offset: int) -> None:
    """Add a symmetric block at (offset, offset) to lower band storage."""
    width = len(block)
    if width not in _TRIANGLES:
        _TRIANGLES[width] = np.tril_indices(width)
    i, j = _TRIANGLES[width]
    band[i - j, j + offset] += block[i, j]


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
