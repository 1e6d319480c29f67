"""From the spread that the depth network predicts to the error seen at that spread: one monotone map per modality.

A likelihood fits the middle of its errors, and a first-order stretch of the far points says too little; so the raw
spread is right in its order at best. The maps are fitted on clips that neither training nor any score uses, and stored
in the weight file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SpreadMap:
    """Piecewise linear in logarithms, never falling; below the first and above the last knot the ratio stays.

    Attributes:
        predicted: spreads as it gives them, rising.
        seen: mean errors there, not falling. Both empty: nothing changes.
    """

    predicted: tuple[float, ...] = ()
    seen: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.predicted) != len(self.seen):
            raise ValueError(
                f"expected as many errors as spreads, got {len(self.seen)} for {len(self.predicted)}"
            )
        values = torch.tensor([self.predicted, self.seen], dtype=torch.float64)
        steps = values.diff(dim=1)
        if bool((values <= 0).any()) or bool((steps[0] <= 0).any()) or bool((steps[1] < 0).any()):
            raise ValueError(
                f"expected positive, rising spreads with errors that do not fall, got {self.predicted}, {self.seen}"
            )

    def __call__(self, spread: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Expected mean absolute error at a predicted spread, > 0."""
        if not self.predicted:
            return spread
        x = torch.tensor(self.predicted, dtype=torch.float32, device=spread.device).log()
        y = torch.tensor(self.seen, dtype=torch.float32, device=spread.device).log()
        wanted = spread.float().clamp(min=1e-12).log()
        if len(x) == 1:
            return (wanted - x[0] + y[0]).exp().to(spread)
        inside = wanted.clamp(float(x[0]), float(x[-1]))
        right = torch.searchsorted(x, inside.contiguous()).clamp(1, len(x) - 1)
        share = (inside - x[right - 1]) / (x[right] - x[right - 1])
        found = torch.lerp(y[right - 1], y[right], share)
        return (found + wanted - inside).exp().to(spread)


@dataclass(frozen=True)
class Calibration:
    """Maps of the two modalities that carry a spread."""

    disparity: SpreadMap = field(default_factory=SpreadMap)
    points: SpreadMap = field(default_factory=SpreadMap)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> "Calibration":
        """Inverse of ``dataclasses.asdict``, through JSON.

        Raises:
            ValueError: not a calibration.
        """
        if set(stored) - {"disparity", "points"}:
            raise ValueError(f"expected maps of disparity and points, got {sorted(stored)}")
        return Calibration(
            **{
                name: SpreadMap(tuple(part["predicted"]), tuple(part["seen"]))
                for name, part in stored.items()
            }
        )


def fit_spread_map(spread: Float[Tensor, " n"], error: Float[Tensor, " n"], num_bins: int = 20) -> SpreadMap:
    """Mean error in bins of equally many predicted spreads; neighbours that would fall share their mean.

    Args:
        spread: predicted, > 0.
        error: absolute, as seen.
        num_bins: number of bins.
    """
    places: list[float] = []
    merged: list[tuple[float, float, int]] = []  # pixels, mean error, bins
    for part in spread.argsort().chunk(num_bins):
        place = float(spread[part].double().log().mean().exp())
        count, level, bins = float(part.numel()), max(float(error[part].double().mean()), 1e-9), 1
        if places and place <= places[-1] * (1 + 1e-9):  # the same spread everywhere: one bin
            before = merged.pop()
            count, level = count + before[0], (count * level + before[0] * before[1]) / (count + before[0])
            bins = before[2]
        else:
            places.append(place)
        # Pool adjacent violators: a level may not lie below the one before.
        while merged and merged[-1][1] >= level:
            before = merged.pop()
            level = (count * level + before[0] * before[1]) / (count + before[0])
            count, bins = count + before[0], bins + before[2]
        merged.append((count, level, bins))
    return SpreadMap(tuple(places), tuple(level for _, level, bins in merged for _ in range(bins)))
