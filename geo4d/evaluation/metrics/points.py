"""Point metrics."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.evaluation.metrics.depth import Average, grouped


@dataclass(frozen=True)
class PointScores:
    """Errors of camera-frame point maps.

    Attributes:
        point_rel: mean |p - r| / |r| on covered pixels (Rel^p), or None where nothing is covered.
        point_delta: share of valid pixels with that ratio below 0.25 (delta^p).
        coverage: share of valid pixels with a finite prediction.
    """

    point_rel: float | None
    point_delta: float
    coverage: float


def point_sums(
    predicted: Float[Tensor, "*f H W 3"],
    reference: Float[Tensor, "*f H W 3"],
    valid: Bool[Tensor, "*f H W"],
    *,
    floor: float = 0.01,
) -> Float[Tensor, "*f 4"]:
    """Per-frame sums, float64, from which ``point_scores`` makes the point metrics.

    Args:
        predicted: aligned points.
        reference: points.
        floor: the distance that errors are divided by is at least this, unit of the points.
    """
    covered = valid & torch.isfinite(predicted).all(-1)
    p = torch.where(covered[..., None], predicted.double(), 0.0)
    r = torch.where(covered[..., None], reference.double(), 0.0)
    ratio = (p - r).norm(dim=-1) / r.norm(dim=-1).clamp(min=floor)
    rows = [valid, covered, torch.where(covered, ratio, 0.0), covered & (ratio < 0.25)]
    return torch.stack([row.double().sum((-2, -1)) for row in rows], dim=-1)


def point_scores(sums: Float[Tensor, "T 4"], *, average: Average = "frame") -> PointScores:
    """Point metrics of one sequence from the ``point_sums`` of its frames.

    Raises:
        DegenerateInput: no valid reference pixel.
    Source: Rel^p and delta^p of GeometryCrafter, Table 1.
    """
    filled, groups = grouped(sums, average)
    seen = groups[groups[:, 1] > 0]
    return PointScores(
        point_rel=float((seen[:, 2] / seen[:, 1]).mean()) if seen.shape[0] else None,
        point_delta=float((groups[:, 3] / groups[:, 0]).mean()),
        coverage=float(filled[:, 1].sum() / filled[:, 0].sum()),
    )
