"""Pull a predicted depth onto confident evidence, and take the surroundings along.

The network knows the layout, the sweep knows the depth where it is sure. The logarithm of their ratio is spread over the
picture from confident pixels to neighbourhoods of growing size; near ones count most. Where no evidence is near, and
where there is none at all, nothing changes. Measured (windows of the held-out set with parallax): see the model card.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.models.tiny.network import Evidence

RADII = (1, 3, 7, 17)
"""Of the neighbourhoods, in pixels of the evidence channels."""
FADING = 0.25
"""Weight of each neighbourhood relative to the next smaller one."""
MAX_CHANGE = 1.6
"""Bound on the logarithm of the correction: a factor of five."""
PRIOR_WEIGHT = 0.0005
"""Pull towards no change, in units of the weight of confident pixels."""
TOP = 1.2
"""Evidence nearer than this many times its own top is cut off in the channels: its value says no more than "near"."""


def log_correction(disparity: Float[Tensor, "B T 1 H W"], evidence: Evidence) -> Float[Tensor, "B T 1 H W"]:
    """Logarithm of the factor that brings a predicted disparity onto the evidence.

    One factor for the whole window is left out: the prediction keeps its own scale.

    Args:
        disparity: >= 0, any unit.
        evidence: its depth channels are used.
    """
    batch, num_frames = disparity.shape[:2]
    confidence = evidence.depth[:, :, 2].float()
    measured = ((evidence.depth[:, :, 0].float() + 1) / 2).clamp(min=0.01)
    small = F.interpolate(disparity.flatten(0, 1).float(), confidence.shape[-2:], mode="area")
    small = small.unflatten(0, (batch, num_frames))[:, :, 0].clamp(min=0.01)
    sure = torch.where(measured < TOP, confidence, 0.0)
    ratio = measured.log() - small.log()
    offset = _weighted_median(ratio.flatten(1), sure.flatten(1))[:, None, None, None]
    ratio = (ratio - offset).clamp(-MAX_CHANGE, MAX_CHANGE)
    total, weight = torch.zeros_like(ratio), torch.full_like(ratio, PRIOR_WEIGHT)
    share = 1.0
    for radius in RADII:
        total = total + share * _mean(sure * ratio, radius)
        weight = weight + share * _mean(sure, radius)
        share *= FADING
    full = F.interpolate((total / weight).flatten(0, 1)[:, None], disparity.shape[-2:], mode="bilinear")
    return full.unflatten(0, (batch, num_frames))


def _mean(values: Float[Tensor, "B T h w"], radius: int) -> Float[Tensor, "B T h w"]:
    averaged = F.avg_pool2d(values.flatten(0, 1)[:, None], 2 * radius + 1, stride=1, padding=radius)
    return averaged[:, 0].unflatten(0, values.shape[:2])


def _weighted_median(values: Float[Tensor, "B n"], weight: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    """0 where all weights are."""
    order = values.argsort(dim=1)
    cumulated = weight.gather(1, order).cumsum(1)
    middle = (cumulated < cumulated[:, -1:] / 2).sum(1, keepdim=True).clamp(max=values.shape[1] - 1)
    found = values.gather(1, order).gather(1, middle)[:, 0]
    return torch.where(cumulated[:, -1] > 0, found, 0.0)
