"""Confidence: the probability that a depth is within ten percent, once the scene's one factor is known.

The fusion knows three signs of error for every pixel: what the surest window reports, how far the windows disagree, and
how far the frame disagrees with its neighbours in time. A logistic curve turns them into a probability. Its numbers are
fitted by ``benchmarks/confidence.py`` on rendered clips that no other benchmark uses. (Mean spread over the windows,
steps of the depth and the probability of motion were tried beside them and got no weight.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SIGNS = ("spread", "windows apart", "frames apart")
"""Natural logarithms of relative depth errors.

``spread``: of the most precise window. ``windows apart``: mean distance from the windows' points. ``frames apart``:
disagreement with neighbours in time.
"""

LOW, HIGH = -5.0, 0.5
"""Range of the logarithms: errors of 0.7 % and of 165 %."""

WITHIN = 0.1
"""Relative error that the probability is about."""


@dataclass(frozen=True)
class ConfidenceCurve:
    """Logistic curve over the signs.

    Attributes:
        offset: of the log odds.
        weight: of each sign in ``SIGNS``, in order, in log odds per unit.
        unknown: log odds in place of the last sign's share where no neighbour in time sees the pixel.
    """

    offset: float
    weight: tuple[float, float, float]
    unknown: float

    def __call__(self, signs: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
        """Probability in [0, 1]; NaN in the last sign means that nobody knows it."""
        spread, windows, frames = signs.clamp(LOW, HIGH)
        known = torch.isfinite(frames)
        last = torch.where(known, self.weight[2] * frames, self.unknown)
        return torch.sigmoid(self.offset + self.weight[0] * spread + self.weight[1] * windows + last)


CURVE = ConfidenceCurve(offset=-3.869, weight=(-0.533, -0.259, -0.931), unknown=1.677)
"""Fitted by ``benchmarks/confidence.py`` to all of its 24 clips."""
