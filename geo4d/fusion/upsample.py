"""Depth from the size of the model to that of the source, along the edges of the picture."""

import torch
from jaxtyping import Float
from torch import Tensor

NEAR_STEP = 0.05
"""Neighbours whose disparity differs by less than this share belong to one surface and are averaged."""


def upsample_depth(
    depth: Float[Tensor, "h w"],
    rgb_low: Float[Tensor, "h2 w2 3"],
    rgb_full: Float[Tensor, "H W 3"],
    *,
    colour_width: float = 0.08,
    rows_at_once: int = 64,
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
    disparity = torch.where(torch.isnan(depth), torch.nan, 1 / depth)
    result = torch.empty(height, width, dtype=depth.dtype, device=depth.device)
    x = (torch.arange(width, device=depth.device) + 0.5) * low_width / width - 0.5
    for first in range(0, height, rows_at_once):
        last = min(height, first + rows_at_once)
        y = (torch.arange(first, last, device=depth.device) + 0.5) * low_height / height - 0.5
        colour = rgb_full[first:last]
        values, weights = [], []
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                row = (y.round().long() + dy).clamp(0, low_height - 1)
                column = (x.round().long() + dx).clamp(0, low_width - 1)
                squared = (y - row)[:, None] ** 2 + (x - column)[None, :] ** 2
                difference = (rgb_low[row[:, None], column[None, :]] - colour).square().sum(-1)
                values.append(disparity[row[:, None], column[None, :]])
                weights.append(
                    torch.exp(-squared - difference / (2 * colour_width**2)) + 1e-12 * torch.exp(-squared)
                )
        value, weight = torch.stack(values), torch.stack(weights).to(depth.dtype)
        chosen = value.gather(0, weight.argmax(0, keepdim=True))
        same = (value - chosen).abs() <= NEAR_STEP * chosen.abs()
        weight = torch.where(same, weight, 0.0)
        total = weight.sum(0)
        mean = (weight * value.nan_to_num(nan=0.0)).sum(0) / total.clamp(min=1e-30)
        result[first:last] = torch.where(total > 0, 1 / mean, torch.nan)
    return result
