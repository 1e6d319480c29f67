"""Depth from the size of the model to that of the source, along the edges of the picture."""

import torch
from jaxtyping import Float
from torch import Tensor

NEAR_STEP = 0.05
"""Neighbours whose disparity differs by less than this share belong to one surface and are averaged."""

INVALID = -1.0
"""Stands for the disparity of invalid pixels: farther from every true one than neighbours of one surface are."""


def upsample_depth(
    depth: Float[Tensor, "h w"],
    rgb_low: Float[Tensor, "h2 w2 3"],
    rgb_full: Float[Tensor, "H W 3"],
    *,
    colour_width: float = 0.08,
    rows_at_once: int = 32,
) -> Float[Tensor, "H W"]:
    """Joint bilateral upsampling: each fine pixel takes the surface of the coarse neighbour that looks like it.

    Of the nine coarse pixels around, the one with the largest weight (near, and of the same colour) names the surface;
    neighbours on the same surface are averaged in disparity. So depths of two surfaces are never mixed, and the sky
    (infinite) and invalid pixels (NaN) stay what they are.

    Args:
        depth: z-depth, +inf in the sky, NaN where invalid.
        rgb_low, rgb_full: colour in [0, 1] at both sizes.
        colour_width: colour difference (Euclidean, in [0, 1]) at which the weight falls to 0.6.
        rows_at_once: fine rows worked on together; bounds the memory.
    Returns:
        depth at the size of ``rgb_full``.
    Raises:
        ValueError: the coarse picture and the depth differ in size.
    Source: Kopf et al. 2007, joint bilateral upsampling, with a choice of surface before the average.
    """
    if rgb_low.shape[:2] != depth.shape:
        raise ValueError(
            f"expected the coarse picture at the size of the depth {tuple(depth.shape)}, got {tuple(rgb_low.shape[:2])}"
        )
    low_height, low_width = depth.shape
    height, width = rgb_full.shape[:2]
    disparity = torch.where(torch.isnan(depth), INVALID, 1 / depth)
    coarse = torch.cat([rgb_low.movedim(-1, 0).to(depth), disparity[None]])
    fine = rgb_full.movedim(-1, 0).to(depth)
    result = torch.empty(height, width, dtype=depth.dtype, device=depth.device)
    # Spread over the fine columns once; the fine rows then only pick whole rows.
    columns = [
        (coarse[:, :, column], across) for column, across in _neighbours(0, width, width, low_width, depth)
    ]
    for first in range(0, height, rows_at_once):
        last = min(height, first + rows_at_once)
        colour = fine[:, first:last].contiguous()
        values, weights = [], []
        for row, down in _neighbours(first, last, height, low_height, depth):
            for wide, across in columns:
                look = wide.index_select(1, row)
                difference = (look[0] - colour[0]).square_()
                for channel in (1, 2):
                    step = look[channel].sub_(colour[channel])
                    difference.addcmul_(step, step)
                likeness = difference.mul_(-0.5 / colour_width**2).exp_().add_(1e-12)
                values.append(look[3])
                weights.append(likeness.mul_(down[:, None]).mul_(across))
        chosen, largest = values[0].clone(), weights[0].clone()
        for value, weight in zip(values[1:], weights[1:], strict=True):
            chosen = torch.where(weight > largest, value, chosen)
            torch.maximum(largest, weight, out=largest)
        limit = NEAR_STEP * chosen.abs()
        total, mean = torch.zeros_like(chosen), torch.zeros_like(chosen)
        for value, weight in zip(values, weights, strict=True):
            offset = value.sub_(chosen)  # averaged as differences: the sky, disparity 0, stays exactly 0
            weight.mul_(offset.abs() <= limit)
            total.add_(weight)
            mean.addcmul_(weight, offset)
        mean = mean.div_(total.clamp_(min=1e-30)).add_(chosen)
        result[first:last] = torch.where(chosen < 0, torch.nan, 1 / mean)
    return result


def _neighbours(first: int, last: int, fine: int, coarse: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Along one axis: the three coarse cells around each fine one, and their weight by distance."""
    place = (torch.arange(first, last, device=like.device) + 0.5) * coarse / fine - 0.5
    cells = [(place.round().long() + step).clamp(0, coarse - 1) for step in (-1, 0, 1)]
    return [(cell, torch.exp(-((place - cell) ** 2)).to(like)) for cell in cells]
