"""Weighted means of a map over the smallest neighbourhood of every pixel that knows enough."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

RADII = (2, 4, 8, 16, 32)
"""Half sides of the squares that are tried, in pixels of maps about a hundred rows high."""
ENOUGH = 4.0
"""Weight with which a neighbourhood counts."""


def mean_around(
    values: Float[Tensor, "*b H W"],
    weight: Float[Tensor, "*b H W"],
    radii: Sequence[int] = RADII,
    enough: float = ENOUGH,
) -> tuple[Float[Tensor, "*b H W"], Bool[Tensor, "*b H W"]]:
    """The mean over the first neighbourhood with enough weight (0 where none has), and where there is one.

    Args:
        values: finite.
        weight: >= 0.
        radii: rising; neighbourhoods are squares, cut at the borders.
        enough: sum of the weights.
    """
    height, width = values.shape[-2:]
    mean, known = torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool)
    # Sums over all pixels above and to the left: a box of any size is the difference of four of them.
    sums = torch.stack([weight, weight * values]).double().cumsum(-2).cumsum(-1)
    sums = F.pad(sums, (1, 0, 1, 0))
    for radius in radii:
        top, bottom = _ends(height, radius, values.device)
        left, right = _ends(width, radius, values.device)
        rows = sums.index_select(-2, bottom) - sums.index_select(-2, top)
        mass, total = (rows.index_select(-1, right) - rows.index_select(-1, left)).to(values.dtype)
        first = (mass >= enough) & ~known
        mean = torch.where(first, total / mass.clamp(min=1e-9), mean)
        known |= first
    return mean, known


def _ends(length: int, radius: int, device: torch.device) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Of the stretch within ``radius`` of every position, cut at the borders: where it begins, and behind its end."""
    at = torch.arange(length, device=device)
    return (at - radius).clamp(min=0), (at + radius + 1).clamp(max=length)
