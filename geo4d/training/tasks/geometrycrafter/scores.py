"""How good depth is on held-out windows: error after one factor for the window, and change between frames."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def window_scores(
    predicted: Float[Tensor, "T H W"],
    truth: Float[Tensor, "T H W"],
    usable: Bool[Tensor, "T H W"] | None = None,
) -> dict[str, float]:
    """AbsRel and temporal change of one window.

    ``abs_rel`` is the mean of |s d - d*| / d* with the one factor s that makes the median ratio 1. ``change`` is the mean
    over pixels of the step between frames t and t + 1 of log(d / d*): a constant error does not change, flicker and drift
    do. It is 0 for a single frame.

    Args:
        predicted: depth, any unit.
        truth: not finite where unknown or sky.
        usable: where the prediction counts; None: everywhere.
    """
    valid = torch.isfinite(truth) & (truth > 0) & torch.isfinite(predicted) & (predicted > 0)
    if usable is not None:
        valid &= usable
    if not bool(valid.any()):
        return {"abs_rel": float("nan"), "change": float("nan")}
    ratio = torch.where(valid, predicted / truth, 1.0)
    scaled = ratio / ratio[valid].median()
    both = valid[1:] & valid[:-1]
    steps = scaled.log().diff(dim=0).abs()
    return {
        "abs_rel": float((scaled[valid] - 1).abs().mean()),
        "change": float(steps[both].mean()) if bool(both.any()) else 0.0,
    }


def mean_scores(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every score over the windows where it is known."""
    names = {name for row in rows for name in row}
    found = {name: torch.tensor([row[name] for row in rows if name in row]) for name in names}
    means = {name: float(values[values.isfinite()].mean()) for name, values in found.items()}
    return {name: means[name] for name in sorted(means) if means[name] == means[name]}
