"""Depth metrics: error means over covered pixels, ``delta`` and ``coverage`` over all that the reference knows."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.evaluation.l1 import DegenerateInput

log = logging.getLogger(__name__)


Average = Literal["pixel", "frame"]
"""``pixel``: all pixels of the sequence alike. ``frame``: mean over frames of the mean of each frame."""


@dataclass(frozen=True)
class DepthScores:
    """Depth errors on covered pixels, and shares of all valid pixels. Errors are None where no pixel is covered.

    Attributes:
        abs_rel: mean |p - r| / r.
        sq_rel: mean (p - r)^2 / r, unit of depth.
        rmse: unit of depth.
        rmse_log: natural logarithm.
        silog: 100 * standard deviation of the logarithmic error.
        log10: mean |log10 p - log10 r|.
        irmse: root mean square error of inverse depth, 1 / unit of depth.
        delta_125: share of valid pixels with ratio below 1.25; the next two: below 1.25^2 and 1.25^3.
        coverage: share of valid pixels with a finite, positive prediction.
        num_pixels: reference-valid pixels.
        num_frames: frames with at least one of them.
        num_empty_frames: frames without any, which cannot be scored.
    """

    abs_rel: float | None
    sq_rel: float | None
    rmse: float | None
    rmse_log: float | None
    silog: float | None
    log10: float | None
    irmse: float | None
    delta_125: float
    delta_125_2: float
    delta_125_3: float
    coverage: float
    num_pixels: int
    num_frames: int
    num_empty_frames: int


def depth_sums(
    predicted: Float[Tensor, "*f H W"],
    reference: Float[Tensor, "*f H W"],
    valid: Bool[Tensor, "*f H W"],
    *,
    floor: float = 0.0,
) -> Float[Tensor, "*f 12"]:
    """Per-frame sums, float64, from which ``depth_scores`` makes all depth metrics.

    Args:
        predicted: aligned z-depth; where it is not finite and positive, the pixel is not covered.
        reference: z-depth, positive where ``valid``.
        floor: denominators are at least this (0.01 in GeometryCrafter's protocol), unit of depth.
    """
    covered = valid & torch.isfinite(predicted) & (predicted > 0)
    p = torch.where(covered, predicted.double(), 1.0)
    r = torch.where(covered, reference.double(), 1.0)
    difference, log = (p - r).abs(), p.log() - r.log()
    ratio = torch.maximum(p / r.clamp(min=floor), r / p.clamp(min=floor))
    rows = [
        valid,
        covered,
        difference / r.clamp(min=floor),
        difference**2 / r,
        difference**2,
        log,
        log**2,
        log.abs() / math.log(10),
        (1 / p - 1 / r) ** 2,
        covered & (ratio < 1.25),
        covered & (ratio < 1.25**2),
        covered & (ratio < 1.25**3),
    ]
    return torch.stack([row.double().sum((-2, -1)) for row in rows], dim=-1)


def grouped(
    sums: Float[Tensor, "T n"], average: Average
) -> tuple[Float[Tensor, "K n"], Float[Tensor, "G n"]]:
    """The frames with a valid pixel, and what means are taken over: all of them as one, or each for itself.

    Args:
        sums: per frame; the first column counts the valid pixels.
    Raises:
        DegenerateInput: no valid reference pixel.
    """
    filled = sums[sums[:, 0] > 0]
    if filled.shape[0] == 0:
        raise DegenerateInput("no valid reference pixel")
    return filled, filled.sum(0, keepdim=True) if average == "pixel" else filled


def depth_scores(sums: Float[Tensor, "T 12"], *, average: Average = "pixel") -> DepthScores:
    """All depth metrics of one sequence from the ``depth_sums`` of its frames.

    In ``frame`` mode a frame without a covered pixel has no error mean, and is wrong in ``delta``; log10 is over all
    pixels in both modes.

    Raises:
        DegenerateInput: no valid reference pixel.
    Source: ``frame`` is the averaging of GeometryCrafter's released evaluation, ``pixel`` that of Geo4D's.
    """
    filled, groups = grouped(sums, average)
    shares = (groups[:, 9:] / groups[:, :1]).mean(0).tolist()
    seen = groups[groups[:, 1] > 0]
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "log10", "irmse")
    errors: dict[str, float | None] = dict.fromkeys(names)
    if seen.shape[0]:
        mean = seen / seen[:, 1:2]
        variance = (mean[:, 6] - mean[:, 5] ** 2).clamp(min=0)
        errors = {
            "abs_rel": float(mean[:, 2].mean()),
            "sq_rel": float(mean[:, 3].mean()),
            "rmse": float(mean[:, 4].sqrt().mean()),
            "rmse_log": float(mean[:, 6].sqrt().mean()),
            "silog": 100 * math.sqrt(float(variance.mean())),
            "log10": float(seen[:, 7].sum() / seen[:, 1].sum()),
            "irmse": float(mean[:, 8].sqrt().mean()),
        }
    return DepthScores(
        **errors,
        delta_125=shares[0],
        delta_125_2=shares[1],
        delta_125_3=shares[2],
        coverage=float(filled[:, 1].sum() / filled[:, 0].sum()),
        num_pixels=int(filled[:, 0].sum()),
        num_frames=filled.shape[0],
        num_empty_frames=sums.shape[0] - filled.shape[0],
    )
