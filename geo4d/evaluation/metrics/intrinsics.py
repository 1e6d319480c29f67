"""Metrics of focal length and principal point."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.cameras import resize_intrinsics


@dataclass(frozen=True)
class IntrinsicsScores:
    """Errors of the intrinsics, both brought to pixels of the reference picture; means over frames with a prediction.

    Attributes:
        fx_rel, fy_rel: mean |f / f_reference - 1|, horizontal and vertical.
        fy_fx_rel: mean |(fy / fx) / (fy / fx of the reference) - 1|; 0 where both are wrong by one factor.
        cx_rel, cy_rel: mean |c - c_reference| over the width and over the height of the picture.
        coverage: share of reference frames with finite predicted intrinsics.
    """

    fx_rel: float | None
    fy_rel: float | None
    fy_fx_rel: float | None
    cx_rel: float | None
    cy_rel: float | None
    coverage: float


def intrinsics_scores(
    predicted: Float[Tensor, "T 3 3"],
    predicted_size: tuple[int, int],
    reference: Float[Tensor, "T 3 3"],
    reference_size: tuple[int, int],
) -> IntrinsicsScores:
    """Errors of the intrinsics of one sequence.

    Args:
        predicted: pixels of pictures of ``predicted_size`` (height, width); NaN for a frame without a prediction.
        reference: pixels of pictures of ``reference_size``.
    """
    ours = resize_intrinsics(predicted.double(), predicted_size, reference_size)
    theirs = reference.double()
    seen = torch.isfinite(ours).all(-1).all(-1) & (ours[:, 0, 0] > 0) & (ours[:, 1, 1] > 0)
    coverage = float(seen.double().mean())
    if not bool(seen.any()):
        return IntrinsicsScores(None, None, None, None, None, coverage)
    ours, theirs = ours[seen], theirs[seen]
    height, width = reference_size

    def mean(error: Tensor) -> float:
        return float(error.abs().mean())

    return IntrinsicsScores(
        fx_rel=mean(ours[:, 0, 0] / theirs[:, 0, 0] - 1),
        fy_rel=mean(ours[:, 1, 1] / theirs[:, 1, 1] - 1),
        fy_fx_rel=mean((ours[:, 1, 1] / ours[:, 0, 0]) / (theirs[:, 1, 1] / theirs[:, 0, 0]) - 1),
        cx_rel=mean((ours[:, 0, 2] - theirs[:, 0, 2]) / width),
        cy_rel=mean((ours[:, 1, 2] - theirs[:, 1, 2]) / height),
        coverage=coverage,
    )
