"""Steps on the sphere of unit vectors of four numbers: homogeneous points, near and at infinity alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mirror_of(points: Float[Tensor, "P 4"]) -> Float[Tensor, "P 4"]:
    """Normal v of the reflection that takes each unit vector onto the last axis (Householder).

    The first three columns of 1 - 2 v v^T / v^T v are the directions in which a point may move.
    """
    v = points.clone()
    v[:, 3] += torch.where(points[:, 3] >= 0, 1.0, -1.0)
    return v


def tangent_of(
    gradient: Float[Tensor, "r 4 O"], mirror: Float[Tensor, "4 O"], along: Float[Tensor, " O"]
) -> Float[Tensor, "r 3 O"]:
    """Derivatives by the three directions from derivatives by the four numbers.

    Args:
        mirror: see ``mirror_of``.
        along: 2 / v^T v.
    """
    return gradient[:, :3] - ((gradient * mirror).sum(1) * along)[:, None] * mirror[:3]


def moved_on_sphere(points: Float[Tensor, "P 4"], step: Float[Tensor, "3 P"]) -> Float[Tensor, "P 4"]:
    """Unit vectors after a step along their three directions."""
    mirror = mirror_of(points)
    along = 2 * (mirror[:, :3] * step.T).sum(1) / mirror.square().sum(1)
    moved = points - along[:, None] * mirror
    moved[:, :3] += step.T
    return moved / moved.norm(dim=1, keepdim=True).clamp_min(1e-12)
