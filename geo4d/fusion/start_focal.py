"""One focal length for each window, from its point maps or its rays."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_median(values: Float[Tensor, "*b n"], mask: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Median over the last axis of the entries where ``mask``; NaN where there are none."""
    return torch.where(mask, values, torch.nan).nanmedian(dim=-1).values


@dataclass(frozen=True)
class FocalFit:
    """Focal length of each window's first frame and the z shift that puts its camera at the origin.

    Attributes:
        focal: pixels; NaN where the window has too few points.
        shift: in the unit of the sampled points; 0 where unknown.
        error: median reprojection error, pixels.
    """

    focal: Float[Tensor, " G"]
    shift: Float[Tensor, " G"]
    error: Float[Tensor, " G"]


def fit_focals(
    points: Float[Tensor, "G 3 P"],
    offset: Float[Tensor, "G 2 P"],
    weight: Float[Tensor, "G P"],
    known_shift: Float[Tensor, " G"],
    *,
    limits: tuple[float, float],
    num_iterations: int = 12,
) -> FocalFit:
    """Focal length and z shift from points in their own camera's axes: x = u (z + shift) / focal, reweighted.

    Linear in 1 / focal and shift / focal, with the noisy x as the answer and not among what explains it, so that
    outliers do not pull the focal length down. Where shift and focal cannot be told apart (all points at one depth) the
    fit leans to the middle of ``limits``.

    Args:
        offset: pixels minus principal point.
        known_shift: NaN where the shift is unknown.
        limits: smallest and largest focal length, pixels.
    """
    base = weight.double()
    points = points.double()
    offset = offset.double()
    xy, z = points[:, :2], points[:, 2]
    enough = (base > 0).sum(1) >= 8
    known = torch.isfinite(known_shift)
    typical = (limits[0] * limits[1]) ** 0.5
    near = 0.1 * masked_median(z.abs(), base > 0).nan_to_num(nan=1.0)[:, None] + 1e-3
    row_weight = base
    focal = torch.full_like(base[:, 0], typical)
    shift = torch.zeros_like(focal)
    error = torch.zeros_like(base)
    for _ in range(num_iterations):
        a11 = (row_weight * (offset**2).sum(1) * z * z).sum(1)
        a12 = (row_weight * (offset**2).sum(1) * z).sum(1)
        a22 = (row_weight * (offset**2).sum(1)).sum(1)
        b1 = (row_weight * (xy * offset).sum(1) * z).sum(1)
        b2 = (row_weight * (xy * offset).sum(1)).sum(1)
        # A breath of prior on the focal length decides the flat scene and nothing else.
        ridge = 1e-6 * a11
        determinant = ((a11 + ridge) * a22 - a12 * a12).clamp(min=1e-30)
        slope = ((b1 + ridge / typical) * a22 - a12 * b2) / determinant
        free_focal = (1 / slope.clamp(min=1e-9)).clamp(*limits)
        free_shift = (b2 * free_focal - a12) / a22.clamp(min=1e-30)
        reach = z + known_shift[:, None]
        power = (row_weight * (offset**2).sum(1) * reach * reach).sum(1)
        along = (row_weight * (xy * offset).sum(1) * reach).sum(1)
        fixed_focal = (power / along.clamp(min=1e-30)).clamp(*limits)
        focal = torch.where(known, fixed_focal, free_focal)
        shift = torch.where(known, known_shift, free_shift)
        distance = torch.maximum(z + shift[:, None], near)
        error = (focal[:, None, None] * xy / distance[:, None] - offset).norm(dim=1)
        floor = 0.3 * masked_median(error, base > 0).nan_to_num(nan=1.0)
        row_weight = base / (distance * distance * torch.maximum(error, floor[:, None]).clamp(min=1e-6))
    median = masked_median(error, base > 0)
    return FocalFit(
        torch.where(enough, focal, torch.nan), torch.where(enough, shift, 0.0).nan_to_num(), median
    )
