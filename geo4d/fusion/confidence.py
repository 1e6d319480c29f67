"""Confidence: the probability that a depth is within ten percent, once the scene's one factor is known.

The fusion knows a few signs of error for every pixel: what the windows report, how far they disagree, how far the frame
disagrees with its neighbours in time, how steep the depth is there, and whether the pixel moves. A logistic curve turns
them into a probability. Its numbers are fitted by ``benchmarks/confidence.py`` on rendered clips that no benchmark uses.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SIGNS = ("mean spread", "best spread", "windows apart", "frames apart", "step", "moving")
"""Logarithms of relative depth errors, natural, but for the last, a probability.

``mean spread``: of the windows' mean precision. ``best spread``: of the most precise window. ``windows apart``: mean
distance from the windows' points. ``frames apart``: disagreement with neighbours in time. ``step``: largest step to a
neighbouring pixel.
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
        unknown: log odds where no neighbour in time sees the pixel, in place of the fourth sign's share.
    """

    offset: float
    weight: tuple[float, float, float, float, float, float]
    unknown: float

    def __call__(self, signs: Float[Tensor, "6 H W"]) -> Float[Tensor, "H W"]:
        """Probability in [0, 1]; signs that are NaN where unknown only in ``frames apart``."""
        weight = signs.new_tensor(self.weight)
        known = torch.isfinite(signs[3])
        logs = signs.clone()
        logs[:5] = signs[:5].nan_to_num(nan=HIGH).clamp(LOW, HIGH)
        odds = self.offset + torch.einsum("k,khw->hw", weight, logs)
        return torch.sigmoid(torch.where(known, odds, odds - weight[3] * logs[3] + self.unknown))


CURVE = ConfidenceCurve(offset=-2.0, weight=(-0.2, -0.3, -0.2, -0.6, -0.2, -1.0), unknown=1.0)
"""Placeholder until fitted."""


def log_step(depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Logarithm of the largest relative step from each pixel to its four neighbours; sky is a step of ``HIGH``."""
    logs = torch.where(torch.isfinite(depth), depth, torch.nan).clamp(min=1e-9).log()
    steps = torch.zeros_like(logs)
    for axis in (0, 1):
        if depth.shape[axis] > 1:
            step = logs.diff(dim=axis).abs().nan_to_num(nan=math.exp(HIGH))
            zero = torch.zeros_like(step.narrow(axis, 0, 1))
            for either in (torch.cat([step, zero], axis), torch.cat([zero, step], axis)):
                steps = torch.maximum(steps, either)
    return steps.clamp(min=1e-6).log()
