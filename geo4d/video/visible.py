"""Whether a frame shows anything: black, flat and burnt-out frames and letterbox bars carry no geometry.

Whatever a network answers there is invented, so the result must not trust it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

FLAT = 2.5 / 255
"""Spread of the brightness below which a region shows nothing: about the rounding of a decoder and a little noise."""

EVEN = 1.5 / 255
"""The same for a row or column of a bar, which no light falls on."""

DARK = 20 / 255
"""Brightness that bars stay below: black in limited range with ringing, and not quite black grading."""

LEAST_SHARE = 0.25
"""Share of visible pixels below which a frame has no usable picture."""

BLOCK = 8
"""Blocks that a picture is divided into along its shorter side."""


def outside_bars(rgb: Float[Tensor, "H W 3"]) -> Bool[Tensor, "H W"]:
    """False on bars: rows and columns from the border on that are dark and flat.

    Args:
        rgb: colour in [0, 1].
    """
    grey = rgb.mean(-1)
    visible = torch.ones_like(grey, dtype=torch.bool)
    for axis in (0, 1):
        lines = grey if axis == 0 else grey.T
        bar = lines.amax(1) < DARK
        if not bool(bar[0] | bar[-1]):  # usually: no bar begins here
            continue
        bar = bar.masked_scatter(bar, lines[bar].std(1, correction=0) < EVEN)
        from_start, from_end = bar.int().cumprod(0), bar.flip(0).int().cumprod(0).flip(0)
        shown = (from_start + from_end) == 0
        visible &= shown[:, None] if axis == 0 else shown[None]
    return visible


def visible_pixels(rgb: Float[Tensor, "H W 3"]) -> Bool[Tensor, "H W"]:
    """True where the picture shows something.

    False on bars, and on the whole frame where hardly any block of the picture varies: black, grey, white, or one smooth
    cast of light.

    Args:
        rgb: colour in [0, 1].
    """
    grey, visible = rgb.mean(-1), outside_bars(rgb)
    if not bool(visible.any()):
        return visible
    rows, columns = visible.any(1), visible.any(0)
    inner = grey[rows][:, columns]
    side = max(2, min(inner.shape) // BLOCK)
    mean = F.avg_pool2d(inner[None, None], side, ceil_mode=True)
    square = F.avg_pool2d(inner.square()[None, None], side, ceil_mode=True)
    varies = (square - mean.square()).clamp(min=0).sqrt() > FLAT
    if float(varies.float().mean()) < 1 / BLOCK**2:
        return torch.zeros_like(visible)
    return visible


def shows_something(visible: Bool[Tensor, "H W"]) -> bool:
    """Whether enough of a frame is visible to be used."""
    return float(visible.float().mean()) >= LEAST_SHARE
