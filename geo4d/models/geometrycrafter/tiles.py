"""Run a convolutional network tile by tile and cross-fade, so that its memory does not grow with the picture."""

from collections.abc import Callable
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover ``length``; neighbours share at least ``overlap``, the last one ends at the border."""
    if tile >= length:
        return [0]
    if not 0 <= overlap < tile:
        raise ValueError(f"expected 0 <= overlap < tile, got overlap {overlap} and tile {tile}")
    starts = list(range(0, length - tile, tile - overlap))
    return [*starts, length - tile]


def _ramp(length: int, before: int, after: int, like: Tensor) -> Tensor:
    """Weights of one axis of a tile: rising over the part shared with the tile before, falling over the one after."""
    weight = like.new_ones(length, dtype=torch.float32)
    for count, ascending in ((before, True), (after, False)):
        if count > 0:
            rise = (torch.arange(count, device=like.device) + 0.5) / count
            if ascending:
                weight[:count] *= rise
            else:
                weight[length - count :] *= rise.flip(0)
    return weight


def run_tiled(
    network: Callable[[Tensor], Tensor],
    x: Float[Tensor, "N C h w"],
    tile: int,
    overlap: int,
    scale: Fraction,
) -> Float[Tensor, "N c H W"]:
    """``network(x)`` computed on overlapping tiles.

    An approximation where the network is not local: normalisation and attention then see one tile only.

    Args:
        network: maps [N, C, h, w] to [N, c, h * scale, w * scale].
        tile: edge of a tile in pixels of ``x``; ``tile * scale`` and ``overlap * scale`` are whole.
        overlap: pixels of ``x`` that neighbouring tiles share at least.
        scale: size of the output over size of the input.
    """
    height, width = x.shape[-2:]
    if tile >= height and tile >= width:
        return network(x)
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    tile_height, tile_width = min(tile, height), min(tile, width)
    total: Tensor | None = None
    weights = torch.zeros(int(height * scale), int(width * scale), device=x.device)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            part = network(x[..., top : top + tile_height, left : left + tile_width]).float()
            vertical = _axis_ramp(rows, i, tile_height, scale, part)
            horizontal = _axis_ramp(columns, j, tile_width, scale, part)
            weight = vertical[:, None] * horizontal
            if total is None:
                total = part.new_zeros(*part.shape[:2], *weights.shape)
            area = (
                slice(int(top * scale), int((top + tile_height) * scale)),
                slice(int(left * scale), int((left + tile_width) * scale)),
            )
            total[..., area[0], area[1]] += part * weight
            weights[area] += weight
    assert total is not None
    return total / weights


def _axis_ramp(starts: list[int], index: int, tile: int, scale: Fraction, like: Tensor) -> Tensor:
    before = starts[index - 1] + tile - starts[index] if index > 0 else 0
    after = starts[index] + tile - starts[index + 1] if index + 1 < len(starts) else 0
    return _ramp(int(tile * scale), int(before * scale), int(after * scale), like)
