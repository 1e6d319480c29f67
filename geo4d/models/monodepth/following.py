"""Scale and shift of every frame's disparity where motion tells nothing about depth: each frame follows those before it.

The camera stands still or only turns, so a still surface keeps its disparity: frames agree at pixels that show the same
colour after the turn. Slopes are ratios of spreads, not regressions, which would shrink from frame to frame by the
network's noise. The first frame keeps the network's own scale, and what comes out stays relative.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.cameras import pixels_to_rays, project
from geo4d.models.monodepth.over_time import Curve, Known, grid_step

BEFORE = 4
"""Earlier frames that a frame is compared with."""
SAME_COLOUR = 0.06
"""Largest difference of any channel, in [0, 1], at which two pixels may show the same still surface."""
LEAST_PIXELS = 60
"""Pixels in common, fewer of which say nothing; the frame then takes the values of the one before."""
BACK = 0.02
"""Share by which the scale of a metric network returns to 1 from frame to frame."""
MOST_CHANGE = 2.0
"""Factor by which a scale may differ from the frame before."""


def follow_frames(
    disparity: Float[Tensor, "V H W"],
    rgb: Float[Tensor, "V H W 3"],
    intrinsics: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    *,
    affine: bool,
    metric: bool = False,
    steady: bool = True,
    known: Known | None = None,
) -> Curve:
    """Scale and shift of every frame.

    Args:
        disparity: the network's, any unit.
        rgb: the pictures, in [0, 1].
        intrinsics, c2w: only rotations are used.
        affine: the network's disparity has a shift; else the shift stays 0.
        metric: the network's unit is metres: the first scale is 1, else the window's top becomes 1.
        steady: False leaves every frame as it is.
        known: what the window before found.
    """
    num_frames = len(disparity)
    unit = 1.0 if metric else 1 / float(_top(disparity[0]))
    scale, shift = torch.full((num_frames,), unit), torch.zeros(num_frames)
    errors = [0.0]
    for t in range(num_frames if steady else 0):
        if known is not None and bool(torch.isfinite(known.scale[t])):
            scale[t], shift[t] = known.scale[t], known.shift[t]
            continue
        if t == 0:
            continue
        pooled = [
            (here, scale[r] * there + shift[r])
            for r in range(max(0, t - BEFORE), t)
            for here, there in [_same_points(disparity, rgb, intrinsics, c2w, t, r)]
        ]
        here, there = (torch.cat(values) for values in zip(*pooled, strict=True))
        scale[t], shift[t], error = _matched(here, there, float(scale[t - 1]), float(shift[t - 1]), affine)
        errors.append(error)
        if metric:
            scale[t] = scale[t] ** (1 - BACK)
    return Curve(scale, shift, float(torch.tensor(errors).median()))


def _top(disparity: Float[Tensor, "H W"]) -> Tensor:
    step = grid_step((disparity.shape[0], disparity.shape[1]))
    return disparity[::step, ::step].flatten().quantile(0.98).clamp(min=1e-9)


def _same_points(
    disparity: Tensor, rgb: Tensor, intrinsics: Tensor, c2w: Tensor, t: int, r: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The network's disparities at pixels of frame ``t`` and at those of frame ``r`` that show the same still point."""
    height, width = disparity.shape[1:]
    step = grid_step((height, width))
    rows, columns = torch.meshgrid(
        torch.arange(step // 2, height, step), torch.arange(step // 2, width, step), indexing="ij"
    )
    rows, columns = rows.flatten(), columns.flatten()
    rays = pixels_to_rays(torch.stack([columns + 0.5, rows + 0.5], -1).to(intrinsics), intrinsics[t])
    turned = rays @ (c2w[r, :3, :3].mT @ c2w[t, :3, :3]).to(rays).mT
    position, depth = project(turned, intrinsics[r])
    inside = (depth > 1e-6) & (position >= 0).all(-1)
    inside &= (position[:, 0] < width) & (position[:, 1] < height)
    column, row = torch.where(inside[:, None], position, 0.0).long().unbind(-1)
    same = inside & ((rgb[t, rows, columns] - rgb[r, row, column]).abs().amax(-1) < SAME_COLOUR)
    return disparity[t, rows, columns][same], disparity[r, row, column][same]


def _matched(
    here: Float[Tensor, " n"], there: Float[Tensor, " n"], scale: float, shift: float, affine: bool
) -> tuple[float, float, float]:
    """Scale and shift that bring ``here`` to ``there``, and the relative error; the given ones where nothing tells."""
    if len(here) < LEAST_PIXELS:
        return scale, shift, 0.0
    here, there = here.double(), there.double()
    if not affine:
        ratio = there.clamp(min=1e-9).log() - here.clamp(min=1e-9).log()
        middle = ratio.median()
        return _bounded(float(middle.exp()), scale), 0.0, float((ratio - middle).abs().median()) * 1.4826
    weight = torch.ones_like(here)
    slope, offset = here.new_tensor(scale), here.new_tensor(shift)
    spread = there.std().clamp(min=1e-12)
    for _ in range(6):
        mass = weight.sum()
        mean_here, mean_there = (weight * here).sum() / mass, (weight * there).sum() / mass
        wide = (weight * (here - mean_here).square()).sum().sqrt()
        if float(wide) < 1e-9:
            return scale, shift, 0.0
        slope = (weight * (there - mean_there).square()).sum().sqrt() / wide
        offset = mean_there - slope * mean_here
        residual = slope * here + offset - there
        width = 2 * (residual.abs().median() * 1.4826).clamp(min=0.01 * float(spread))
        weight = 1 / (1 + (residual / width).square())
    bounded = _bounded(float(slope), scale)
    if bounded != float(slope):
        offset = mean_there - bounded * mean_here
    typical = float(there.abs().median().clamp(min=1e-9))
    return bounded, float(offset), float((residual.abs().median()) * 1.4826) / typical


def _bounded(scale: float, before: float) -> float:
    return min(max(scale, before / MOST_CHANGE), before * MOST_CHANGE)
