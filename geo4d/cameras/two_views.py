"""Cameras from the essential matrix of a pair, and other cameras from its points.

Axis names: N cameras, P points.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.points import triangulate
from geo4d.cameras.rotations import bearing, fit_rotation
from geo4d.cameras.terms import BundleState
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import interpolate_rigid, rigid


def widest_pair(observations: Observations, num_cameras: int, focal: float) -> tuple[int, int]:
    """The two cameras with the most shared points times motion that a rotation does not explain."""
    best, pair = -1.0, (0, num_cameras - 1)
    step = max(1, num_cameras // 6)
    for i in range(0, num_cameras - 1, step):
        for j in range(i + 1, num_cameras, step):
            _, uv_a, uv_b = shared_points(observations, i, j)
            if len(uv_a) < 16:
                continue
            a, b = bearing(uv_a, focal), bearing(uv_b, focal)
            left = (b - a @ fit_rotation(a, b, 6).T).norm(dim=1).median() * focal
            score = float(len(uv_a) ** 0.5 * left.clamp_max(0.1 * focal))
            if score > best:
                best, pair = score, (i, j)
    return pair


def relative_pose(
    observations: Observations,
    num_points: int,
    focal: float,
    pixel_error: float,
    pair: tuple[int, int],
    among: Bool[Tensor, " P"] | None = None,
) -> tuple[Float[Tensor, "4 4"], Bool[Tensor, " P"]] | None:
    """First to second camera of a pair by an essential matrix, and the points that it explains; None where that fails.

    Args:
        among: points that it may be found with; None: all.
    """
    both, uv_a, uv_b = shared_points(observations, *pair)
    if among is not None:
        both, uv_a, uv_b = both[among[both]], uv_a[among[both]], uv_b[among[both]]
    if len(both) < 16:
        return None
    a, b = uv_a.numpy(), uv_b.numpy()
    K = np.array([[focal, 0.0, 0.0], [0.0, focal, 0.0], [0.0, 0.0, 1.0]])
    # A tenth of the time of plain RANSAC here, and more often right beside movers.
    essential, inlier = cv2.findEssentialMat(
        a, b, K, method=cv2.USAC_ACCURATE, prob=0.9999, threshold=2 * pixel_error, maxIters=2000
    )
    if essential is None or essential.shape != (3, 3) or inlier.sum() < 8:
        return None
    _, R, t, _ = cv2.recoverPose(essential, a, b, focal=focal, pp=(0.0, 0.0), mask=inlier.copy())
    explained = torch.zeros(num_points, dtype=torch.bool)
    explained[both[torch.from_numpy(inlier[:, 0].astype(bool))]] = True
    return rigid(torch.from_numpy(R), torch.from_numpy(t[:, 0])), explained


def two_view_start(
    observations: Observations,
    num_cameras: int,
    num_points: int,
    focal: float,
    pixel_error: float,
    pair: tuple[int, int],
) -> BundleState | None:
    """Essential matrix of one pair, its points, then all other cameras from these points; None where that fails."""
    found = relative_pose(observations, num_points, focal, pixel_error, pair)
    if found is None:
        return None
    log_focal = torch.full((num_cameras,), math.log(focal), dtype=torch.float64)
    known = torch.zeros(num_cameras, dtype=torch.bool)
    known[list(pair)] = True
    first, second = torch.eye(4, dtype=torch.float64), found[0]
    share = ((torch.arange(num_cameras) - pair[0]) / (pair[1] - pair[0])).clamp(0, 1).double()
    w2c = interpolate_rigid(first.expand(num_cameras, 4, 4), second.expand(num_cameras, 4, 4), share)
    points = triangulate(w2c, log_focal, observations.select(known[observations.camera]), num_points)
    width = 2 * pixel_error / focal
    w2c = fit_to_points(observations, points, found[1], focal, width, w2c, ~known)
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points))


def fit_to_points(
    observations: Observations,
    points: Float[Tensor, "P 4"],
    usable: Bool[Tensor, " P"],
    focal: float,
    width: float,
    initial_w2c: Float[Tensor, "N 4 4"],
    wanted: Bool[Tensor, " N"],
) -> Float[Tensor, "N 4 4"]:
    """Poses of the wanted cameras from points, in one batch; as they were where fewer than eight points are seen.

    Args:
        width: robust width in units of the focal length.
    """
    column = torch.cumsum(usable, 0) - 1
    rows = (usable[observations.point] & wanted[observations.camera]).nonzero()[:, 0]
    cells = (observations.camera[rows], column[observations.point[rows]])
    rays = torch.ones(len(initial_w2c), int(usable.sum()), 3, dtype=torch.float64)
    rays[..., :2][cells] = observations.uv[rows] / focal
    weight = torch.zeros(rays.shape[:2], dtype=torch.float64)
    weight[cells] = 1.0
    chosen = (weight.sum(1) >= 8).nonzero()[:, 0]
    if len(chosen) == 0:
        return initial_w2c
    world = points[usable, :3] / torch.where(points[usable, 3:].abs() < 1e-6, 1e-6, points[usable, 3:])
    w2c = initial_w2c.clone()
    w2c[chosen] = fit_camera_pose(
        world.expand(len(chosen), -1, -1),
        rays[chosen],
        weight[chosen],
        initial_w2c=initial_w2c[chosen],
        robust_width=width,
        num_iterations=10,
    )
    return w2c
