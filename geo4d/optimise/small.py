"""Products and factors of tiny matrices, many at once, written as sums of whole rows: the last axis is the batch."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sum_outer(a: Float[Tensor, "k i O"], b: Float[Tensor, "k j O"]) -> Float[Tensor, "i j O"]:
    """a^T b of every column."""
    total = a[0, :, None] * b[0]
    for k in range(1, len(a)):
        total.addcmul_(a[k, :, None], b[k])
    return total


def cholesky_3x3(V: Float[Tensor, "3 3 P"], damping: float) -> Float[Tensor, "6 P"]:
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


def whiten(rows: Float[Tensor, "k 3 O"], factor: Float[Tensor, "6 O"]) -> Float[Tensor, "k 3 O"]:
    """rows L^-T."""
    xx, yx, zx, yy, zy, zz = factor
    x = rows[:, 0] / xx
    y = (rows[:, 1] - x * yx) / yy
    z = (rows[:, 2] - x * zx - y * zy) / zz
    return torch.stack([x, y, z], 1)


def solve_3x3(factor: Float[Tensor, "6 P"], right: Float[Tensor, "3 P"]) -> Float[Tensor, "3 P"]:
    """(L L^T)^-1 right."""
    xx, yx, zx, yy, zy, zz = factor
    x, y, z = whiten(right[None], factor)[0]
    z = z / zz
    y = (y - zy * z) / yy
    x = (x - yx * y - zx * z) / xx
    return torch.stack([x, y, z])
