"""Does the confidence mean what it says? Calibration, ranking of errors, and what a threshold keeps.

The claim that is tested: ``confidence`` is the probability that a depth is within 10 % of the truth after the one factor
of its scene. Everything works on samples of pixels, so that sequences can be pooled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

WITHIN = 0.1
"""Relative error that the confidence speaks about."""
NUM_GROUPS = 10


@dataclass(frozen=True)
class Group:
    """Pixels of like confidence.

    Attributes:
        claimed: mean confidence.
        true: share of them within ``WITHIN``.
        share: of all pixels.
    """

    claimed: float
    true: float
    share: float


def calibration_deciles(confidence: Float[Tensor, " n"], error: Float[Tensor, " n"]) -> tuple[Group, ...]:
    """Ten groups of (nearly) equal size, least confident first; equal confidences share their groups' means.

    Args:
        confidence: in [0, 1].
        error: relative errors, >= 0.
    Returns:
        fewer groups where there are fewer than ten samples; none without samples.
    """
    order = confidence.argsort(stable=True)
    # Equal claims must not be sorted by chance: each takes the share of right ones among all of its kind.
    values, inverse, counts = confidence.unique(return_inverse=True, return_counts=True)
    right = torch.zeros(len(values), dtype=torch.float64).index_add_(
        0, inverse, (error <= WITHIN).to(torch.float64)
    )
    expected = (right / counts)[inverse]
    groups = []
    for part in torch.tensor_split(order, NUM_GROUPS):
        if len(part):
            groups.append(
                Group(
                    float(confidence[part].double().mean()),
                    float(expected[part].mean()),
                    len(part) / len(order),
                )
            )
    return tuple(groups)


def calibration_tenths(confidence: Float[Tensor, " n"], error: Float[Tensor, " n"]) -> tuple[Group, ...]:
    """Groups by claimed probability: [0, 0.1), [0.1, 0.2), .. [0.9, 1]; empty ones are left out."""
    index = (confidence * NUM_GROUPS).long().clamp(0, NUM_GROUPS - 1)
    groups = []
    for tenth in range(NUM_GROUPS):
        part = index == tenth
        if bool(part.any()):
            groups.append(
                Group(
                    float(confidence[part].double().mean()),
                    float((error[part] <= WITHIN).double().mean()),
                    float(part.double().mean()),
                )
            )
    return tuple(groups)


def spearman(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    """Rank correlation, equal values at their mean rank; None where one of the two is constant."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 0 else None


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def confidence_scores(
    confidence: Float[Tensor, " n"],
    error: Float[Tensor, " n"],
    kept: Bool[Tensor, " n"] | None = None,
    moving: Bool[Tensor, " n"] | None = None,
) -> dict[str, float | None]:
    """What one sequence (or a pool of them) says about its confidence.

    Args:
        confidence: in [0, 1] of pixels with finite depth.
        error: |p - r| / r there, after the scene's one factor.
        kept: pixels that exports keep by default, or None.
        moving: pixels that the result calls moving, or None.
    Returns:
        ``confidence_gap``: largest |claimed - true| of the deciles; ``confidence_spearman``: with -error; ``kept`` and
        ``kept_moving``: shares; ``kept_abs_rel``: AbsRel of the kept over that of all; ``dropped_error``: median error of
        the dropped over that of the kept. None where it is not determined.
    """
    names = ("confidence_gap", "confidence_spearman", "kept", "kept_moving", "kept_abs_rel", "dropped_error")
    result: dict[str, float | None] = dict.fromkeys(names)
    if confidence.numel() == 0:
        return result
    result["confidence_gap"] = max(
        abs(group.claimed - group.true) for group in calibration_deciles(confidence, error)
    )
    result["confidence_spearman"] = spearman(confidence, -error)
    if kept is not None:
        result["kept"] = float(kept.double().mean())
        if moving is not None and bool(moving.any()):
            result["kept_moving"] = float(kept[moving].double().mean())
        if bool(kept.any()):
            everything = float(error.double().mean())
            result["kept_abs_rel"] = float(error[kept].double().mean()) / everything if everything else None
            middle = float(error[kept].median())
            if not bool(kept.all()) and middle > 0:
                result["dropped_error"] = float(error[~kept].median()) / middle
    return result


def pooled_confidence(samples: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any] | None:
    """The same over several sequences, with the groups of the calibration; None without samples.

    Args:
        samples: per sequence ``confidence`` and ``error`` of equally many pixels, so that sequences count alike.
    """
    if not any(len(sample["confidence"]) for sample in samples):
        return None
    confidence = torch.cat([torch.tensor(list(sample["confidence"])).float() for sample in samples])
    error = torch.cat([torch.tensor(list(sample["error"])).float() for sample in samples])
    scores = confidence_scores(confidence, error)
    return {
        "num_samples": confidence.numel(),
        "gap": scores["confidence_gap"],
        "spearman": scores["confidence_spearman"],
        "deciles": [vars(group) for group in calibration_deciles(confidence, error)],
        "tenths": [vars(group) for group in calibration_tenths(confidence, error)],
    }
