"""Semi-global smoothing of cost volumes: surfaces without texture take the answer of their surroundings.

Axis names: R reference frames, D planes, H W pixels, L positions along a scan line.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geo4d.evidence.cost import SweepConfig


def semi_global(
    cost: Float[Tensor, "R D H W"], grey: Float[Tensor, "R H W"], config: SweepConfig
) -> Float[Tensor, "R D H W"]:
    """Semi-global aggregation along the eight directions to the neighbours of a pixel, mean of the eight.

    A change of one plane between neighbours costs ``smooth_small``, any larger one ``smooth_large``, less across
    edges of the picture.

    Source: Hirschmueller, Stereo processing by semiglobal matching and mutual information, 2008, Eq. (13).
    """
    vertical = _scan_both_ways(cost, grey, (-1, 0, 1), config)
    horizontal = _scan_both_ways(cost.transpose(2, 3).contiguous(), grey.transpose(1, 2), (0,), config)
    return vertical.add_(horizontal.transpose(2, 3)).mul_(0.125)


def _scan_both_ways(
    cost: Float[Tensor, "R D S L"], grey: Float[Tensor, "R S L"], slants: Sequence[int], config: SweepConfig
) -> Float[Tensor, "R D S L"]:
    """Sum of the path costs down and up the axis S, straight or with a step of ``slants`` along L for each along S."""
    refs, num_planes, steps, lines = cost.shape
    small = config.smooth_small
    # Of both ways: the brightness step from where a path comes from, by the line that it comes from.
    came = torch.stack([_moved(grey, slant) for slant in slants])
    step = torch.stack([grey[:, 1:] - came[:, :, :-1], grey[:, :-1] - came[:, :, 1:]]).abs_()
    large = (config.smooth_large / (1 + 2 * (step / config.edge_scale))).clamp_min(1.5 * small)
    # One extra plane of infinity on both ends stands for "no such neighbour".
    state = cost.new_full((2, len(slants), refs, num_planes + 2, lines), torch.inf)
    inner = state[:, :, :, 1:-1]
    total = torch.empty_like(cost)
    best = torch.empty_like(inner)
    touched = torch.zeros(steps, dtype=torch.bool)
    for s in range(steps):
        back = steps - 1 - s
        if s == 0:
            inner[0], inner[1] = cost[:, :, s], cost[:, :, back]
        else:
            for k, slant in enumerate(slants):
                if slant:
                    inner[:, k] = _moved(inner[:, k], slant)
            low = inner.amin(3, keepdim=True)
            torch.minimum(state[:, :, :, :-2], state[:, :, :, 2:], out=best)
            best.add_(small)
            torch.minimum(best, inner, out=best)
            best.sub_(low)
            jump = torch.stack([large[0, :, :, s - 1], large[1, :, :, back]])[:, :, :, None]
            torch.minimum(best, jump, out=best)
            torch.add(best[0], cost[:, :, s], out=inner[0])
            torch.add(best[1], cost[:, :, back], out=inner[1])
        for direction, line in ((0, s), (1, back)):
            if touched[line]:
                total[:, :, line] += inner[direction].sum(0)
            else:
                total[:, :, line] = inner[direction].sum(0)
                touched[line] = True
    return total


def _moved(values: Float[Tensor, "*b L"], slant: int) -> Float[Tensor, "*b L"]:
    """The values ``slant`` (-1, 0 or 1) positions further on; 0, a path's beginning, where nothing comes from."""
    if slant == 0:
        return values
    return F.pad(values[..., :-1], (1, 0)) if slant > 0 else F.pad(values[..., 1:], (0, 1))
