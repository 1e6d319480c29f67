"""Cameras that only turn: rotations from viewing directions.

Axis names: N cameras, P points, S shared points of two views.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.observations import Observations, shared_points
from geo4d.geometry.poses import inverse, nearest_rotation, relative


def bearing(uv: Float[Tensor, "S 2"], focal: float) -> Float[Tensor, "S 3"]:
    """Unit viewing directions of pixels relative to the principal point."""
    rays = torch.cat([uv / focal, torch.ones_like(uv[:, :1])], 1)
    return rays / rays.norm(dim=1, keepdim=True)


def fit_rotation(
    source: Float[Tensor, "S 3"], target: Float[Tensor, "S 3"], num_iterations: int = 15, floor: float = 1e-3
) -> Float[Tensor, "3 3"]:
    """Rotation that takes unit vectors onto unit vectors with the least sum of distances; identity for no vectors."""
    if len(source) == 0:
        return torch.eye(3, dtype=source.dtype)
    weight = torch.ones(len(source), dtype=source.dtype)
    rotation = torch.eye(3, dtype=source.dtype)
    for _ in range(num_iterations):
        rotation = nearest_rotation((target * weight[:, None]).T @ source)
        weight = 1 / ((target - source @ rotation.T).norm(dim=1) + floor)
    return rotation


def rotation_chain(observations: Observations, num_cameras: int, focal: float) -> Float[Tensor, "N 3 3"]:
    """World-to-camera rotations chained over consecutive cameras as if there were no translation."""
    rotations = [torch.eye(3, dtype=torch.float64)]
    for i in range(num_cameras - 1):
        _, uv_a, uv_b = shared_points(observations, i, i + 1)
        rotations.append(fit_rotation(bearing(uv_a, focal), bearing(uv_b, focal)) @ rotations[-1])
    return torch.stack(rotations)


def mean_directions(
    w2c: Float[Tensor, "N 4 4"], log_focal: Float[Tensor, " N"], observations: Observations, num_points: int
) -> Float[Tensor, "P 4"]:
    """Points at infinity: the mean viewing direction of each in the world; +z for points that nobody saw."""
    focal = log_focal.exp()[observations.camera]
    rays = torch.cat([observations.uv / focal[:, None], torch.ones_like(observations.uv[:, :1])], 1)
    rays = rays / rays.norm(dim=1, keepdim=True)
    world = (w2c[observations.camera, :3, :3].mT @ rays[..., None])[..., 0]
    total = torch.zeros(num_points, 3, dtype=torch.float64).index_add_(0, observations.point, world)
    total = torch.where(total.norm(dim=1, keepdim=True) > 1e-6, total, total.new_tensor([0, 0, 1.0]))
    return torch.cat([total / total.norm(dim=1, keepdim=True), torch.zeros_like(total[:, :1])], 1)


def relative_rotations(w2c: Float[Tensor, "N 4 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotations from the first camera to each."""
    return relative(inverse(w2c[:1]).expand_as(w2c), inverse(w2c))[:, :3, :3]
