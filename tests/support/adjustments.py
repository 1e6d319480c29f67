"""Cameras, points and their exact observations, for everything that adjusts them."""

import math

import torch

from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import BundleState
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import inverse, rigid, so3_exp, transform


def problem(num_cameras=6, num_points=40, span=4, noise=0.0, seed=0, focal=400.0):
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(num_points, 3, generator=g, dtype=torch.float64) * torch.tensor([4.0, 3.0, 3.0])
    points += torch.tensor([-2.0, -1.5, 3.0])
    steps = torch.arange(num_cameras, dtype=torch.float64)
    centres = torch.stack([0.15 * steps, 0.03 * torch.sin(steps), 0.05 * steps], 1)
    R = so3_exp(torch.stack([0.02 * torch.cos(steps), 0.03 * steps, 0 * steps], 1))
    w2c = rigid(R, -(R @ centres[..., None])[..., 0])
    homogeneous = torch.cat([points, torch.ones(num_points, 1, dtype=torch.float64)], 1)
    homogeneous /= homogeneous.norm(dim=1, keepdim=True)
    state = BundleState(w2c, torch.full((num_cameras,), math.log(focal), dtype=torch.float64), homogeneous)
    starts = torch.randint(0, num_cameras - span + 1, (num_points,), generator=g)
    camera = (starts[:, None] + torch.arange(span)).reshape(-1)
    point = torch.arange(num_points).repeat_interleave(span)
    p = (w2c[camera, :3] @ homogeneous[point][..., None])[..., 0]
    uv = focal * p[:, :2] / p[:, 2:] + noise * torch.randn(len(p), 2, generator=g, dtype=torch.float64)
    return state, Observations(camera, point, uv, torch.ones(len(p), dtype=torch.float64))


def disturbed(state, amount=0.03, focal_factor=1.1, seed=1):
    g = torch.Generator().manual_seed(seed)
    twist = amount * torch.randn(len(state.w2c), 6, generator=g, dtype=torch.float64)
    twist[0] = 0
    motion = rigid(so3_exp(twist[:, 3:]), twist[:, :3])
    points = state.points + 0.3 * amount * torch.randn(state.points.shape, generator=g, dtype=torch.float64)
    return BundleState(
        motion @ state.w2c,
        state.log_focal + math.log(focal_factor),
        points / points.norm(dim=1, keepdim=True),
    )


def tangent_basis(points):
    """The directions that the solver moves unit vectors in: Householder reflections without their last column."""
    v = points + torch.tensor([0, 0, 0, 1.0]) * torch.where(points[:, 3:] >= 0, 1.0, -1.0)
    reflection = torch.eye(4) - 2 * v[:, :, None] * v[:, None, :] / v.square().sum(1)[:, None, None]
    return reflection[:, :, :3]


def centre_error(w2c: torch.Tensor, truth: torch.Tensor) -> float:
    """RMS of the camera centres after a similarity."""
    x, y = inverse(w2c)[:, :3, 3], inverse(truth)[:, :3, 3]
    return float((transform(fit_similarity(x, y), x) - y).square().sum(1).mean().sqrt())


def wall(num_cameras: int, noise: float, seed: int) -> tuple[torch.Tensor, Observations]:
    """Cameras that pass along a wall, 160x96 pictures of focal length 140, and tracks that last 3 to 13 of them."""
    g = torch.Generator().manual_seed(seed)
    s = torch.arange(num_cameras, dtype=torch.float64)
    turn = torch.stack([0.02 * (0.11 * s).sin(), 0.2 * (0.07 * s).sin(), 0.02 * (0.17 * s).sin()], 1)
    place = torch.stack([0.13 * s, 0.3 * (0.13 * s).sin(), 0.5 * (0.05 * s).sin()], 1)
    w2c = inverse(rigid(so3_exp(turn), place))
    length = 0.13 * num_cameras + 10
    size = torch.tensor([length, 5.0, 0.3], dtype=torch.float64)
    points = torch.rand(int(8 * length), 3, generator=g, dtype=torch.float64) * size
    points += torch.tensor([-5.0, -2.5, 6.0])
    seen = points @ w2c[:, :3, :3].mT + w2c[:, None, :3, 3]
    uv = 140 * seen[..., :2] / seen[..., 2:]
    inside = (uv[..., 0].abs() < 80) & (uv[..., 1].abs() < 48)
    camera, point = inside.nonzero(as_tuple=True)
    uv = uv[inside] + noise * torch.randn(len(camera), 2, generator=g, dtype=torch.float64)
    lasts = torch.randint(3, 14, (len(points),), generator=g)
    _, track = (point * num_cameras + camera // lasts[point]).unique(return_inverse=True)
    return w2c, Observations(camera, track, uv, torch.ones(len(camera), dtype=torch.float64))
