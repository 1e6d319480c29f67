"""Rigid motions from twists, for tests that need some."""

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.poses import rigid, skew, so3_exp

SMALL_ANGLE = 1e-4
"""Below this a series takes the place of the quotients, radians."""


def _left_jacobian(rotation_vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    angle_squared = (rotation_vector**2).sum(-1)[..., None, None]
    small = angle_squared < SMALL_ANGLE**2
    safe = torch.where(small, torch.ones_like(angle_squared), angle_squared)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - angle_squared / 24, (1 - torch.cos(angle)) / safe)
    second = torch.where(small, 1 / 6 - angle_squared / 120, (angle - torch.sin(angle)) / (safe * angle))
    generator = skew(rotation_vector)
    identity = torch.eye(3, dtype=rotation_vector.dtype, device=rotation_vector.device)
    return identity + first * generator + second * generator @ generator


def se3_exp(twist: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 4 4"]:
    """Rigid motion of a twist (translation part first, then rotation vector)."""
    linear, rotation_vector = twist[..., :3], twist[..., 3:]
    translation = (_left_jacobian(rotation_vector) @ linear[..., None])[..., 0]
    return rigid(so3_exp(rotation_vector), translation)
