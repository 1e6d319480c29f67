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
