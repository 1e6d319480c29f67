"""Pull a predicted depth onto confident evidence, and take the surroundings along.

The network knows the layout, the sweep knows the depth where it is sure. The logarithm of their ratio is spread from
confident pixels over their neighbours of like colour, in the picture and from frame to frame: a smooth field that
follows the evidence where it is sure, bends at the edges of the picture, and returns to no change away from all evidence.
Where there is none at all, nothing changes. Measured: see the model card.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.models.spread import spread_field
from geo4d.models.tiny.network import Evidence

MAX_CHANGE = 1.6
"""Bound on the logarithm of the correction: a factor of five."""
TOP = 1.2
"""Evidence nearer than this many times its own top is cut off in the channels: its value says no more than "near"."""


def log_correction(
    disparity: Float[Tensor, "B T 1 H W"], evidence: Evidence, rgb: Float[Tensor, "B T 3 H W"]
) -> Float[Tensor, "B T 1 H W"]:
    """Logarithm of the factor that brings a predicted disparity onto the evidence.

    One factor for the whole window is left out: the prediction keeps its own scale.

    Args:
        disparity: >= 0, any unit.
        evidence: its depth channels are used.
        rgb: the pictures, in [-1, 1]; their edges bound what the evidence pulls along.
    """
    batch, num_frames = disparity.shape[:2]
    confidence = evidence.depth[:, :, 2].float()
    size = (confidence.shape[-2], confidence.shape[-1])
    measured = ((evidence.depth[:, :, 0].float() + 1) / 2).clamp(min=0.01)
    small = F.interpolate(disparity.flatten(0, 1).float(), size, mode="area")
    small = small.unflatten(0, (batch, num_frames))[:, :, 0].clamp(min=0.01)
    sure = torch.where(measured < TOP, confidence, 0.0)
    ratio = measured.log() - small.log()
    offset = _weighted_median(ratio.flatten(1), sure.flatten(1))[:, None, None, None]
    ratio = (ratio - offset).clamp(-MAX_CHANGE, MAX_CHANGE)
    colour = F.interpolate(rgb.flatten(0, 1).float() / 2, size, mode="area").unflatten(0, (batch, num_frames))
    field = spread_field(ratio, sure, colour)
    full = F.interpolate(field.flatten(0, 1)[:, None], disparity.shape[-2:], mode="bilinear")
    return full.unflatten(0, (batch, num_frames))


def _weighted_median(values: Float[Tensor, "B n"], weight: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    """0 where all weights are."""
    order = values.argsort(dim=1)
    cumulated = weight.gather(1, order).cumsum(1)
    middle = (cumulated < cumulated[:, -1:] / 2).sum(1, keepdim=True).clamp(max=values.shape[1] - 1)
    found = values.gather(1, order).gather(1, middle)[:, 0]
    return torch.where(cumulated[:, -1] > 0, found, 0.0)
