"""Robust kernels: what a residual costs, and the weight of its square when a square stands in for the cost."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def cauchy_cost(squared: Float[Tensor, "*b"], width: float) -> Float[Tensor, "*b"]:
    """``width``^2 log(1 + squared / ``width``^2): the square where it is small, hardly more where it is large."""
    return width**2 * torch.log1p(squared / width**2)


def cauchy_weight(squared: Float[Tensor, "*b"], width: float) -> Float[Tensor, "*b"]:
    """Derivative of ``cauchy_cost`` by the squared residual."""
    return 1 / (1 + squared / width**2)


def norm_weight(length: Float[Tensor, "*b"], width: float) -> Float[Tensor, "*b"]:
    """Weight that makes the square of a residual vector pull as its length does; blunt below ``width``."""
    return 1 / length.clamp(min=width)
