"""How far the network's layout is believed beside the evidence: as far as evidence that it did not see vouches for it.

Spread over the picture, evidence alone is a depth map (the field of ``anchor.py``). The network adds what lies between:
outlines, subjects, corners without tracks. On pictures like those it was trained on this is a gain, on others it is not,
and the evidence of the window can tell. Half of it is taken away in a checkerboard of blocks. What the other half,
spread, leaves unexplained there is compared with what it leaves of the network's answer without any evidence: the part
of the variance that the network explains (the square of their correlation) is its share in the result. Evidence whose own
error could be all that is left judges nothing.

Measured on single windows by ``benchmarks/vouched.py``: the share of pixels within 25 % of the truth, all / without
evidence / movers, on 24 rendered clips (which chose the rule) .747 / .492 / .501 with the network's layout as it is,
.757 / .478 / .503 with evidence alone and .759 / .491 / .518 with this share; on the four samples .872 / .604,
.888 / .657 and .888 / .655. The correlation itself as the share (the rule before): .757 / .493 / .511 and .885 / .637.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.models.spread import spread_field
from geo4d.models.tiny.anchor import TOP
from geo4d.models.tiny.network import Evidence

BLOCKS = 3
"""Blocks of the checkerboard along the shorter side: about as large as the holes that evidence leaves."""
LOCAL = 0.5
"""Part of the stated error of the evidence that changes from block to block; the rest, from cameras and focal length, is
alike over the picture and spread away. On twelve of those clips all of it, half and none of it are ties; the clip
``wide`` of ``tests/acceptance`` was looked at, too."""
FRAME_STEP = 2
"""Every so many frames judge."""
NUM_ITERATIONS = 20
"""Conjugate gradient steps of these fields; three times as many change the share by 0.05 at most."""
LEAST_WEIGHT = 0.02
"""Confidence below which a pixel judges nothing."""
ALONE = 0.18
"""Error of the logarithm of depth that the network alone has about. 16 rendered clips, the four samples and a clip
whose zoom was taken for a path chose it among 0.12 to 0.3: delta of that clip .30 -> .52, of the rendered ones .771 ->
.766, of the samples .887 -> .883; AbsRel .47 -> .28, .258 -> .248, .148 -> .149."""
LEAST_SEEN = 0.01
"""Share of a window's top disparity below which the witness says no more than "far"."""
USUAL_COVERAGE = 0.02
"""Mean confidence of a window that counts as much as the assumption that the network is right."""


def vouched_share(
    witness: Float[Tensor, "B T 1 H W"], evidence: Evidence, rgb: Float[Tensor, "B T 3 H W"]
) -> Float[Tensor, " B"]:
    """Share of the network's own layout in the result, in [0, 1]; 1 without evidence.

    Args:
        witness: the network's disparity without any evidence, >= 0, any unit.
        evidence: its depth channels are used.
        rgb: the pictures, in [-1, 1].
    """
    found, weight = (maps[:, ::FRAME_STEP] for maps in log_evidence(evidence))
    rgb, witness = rgb[:, ::FRAME_STEP], witness[:, ::FRAME_STEP]
    colour = evidence_colours(rgb, weight)
    small = F.interpolate(witness.flatten(0, 1).float(), weight.shape[-2:], mode="area")
    seen = small.reshape(weight.shape).clamp(min=0.01).log()
    board = checkerboard(weight.shape[-2:], weight.device)
    noise = torch.zeros_like(found) if evidence.error is None else _own_error(evidence, found)
    left: list[list[Tensor]] = [
        [],
        [],
        [],
        [],
    ]  # of witness, of evidence, weight, variance: an entry for each half
    for half in (board, ~board):
        for rest, values in zip(left[:2], (seen, found), strict=True):
            values = values - _weighted_mean(values, weight)
            rest.append((values - spread_field(values, weight * half, colour, NUM_ITERATIONS)).flatten(1))
        judging = weight * ~half
        left[2].append((judging * (judging > LEAST_WEIGHT)).flatten(1))
        left[3].append(noise.flatten(1))
    correlation, told = _correlation(*(torch.cat(parts, 1) for parts in left))
    coverage = weight.mean((1, 2, 3))
    trust = told * coverage / (coverage + USUAL_COVERAGE)
    return trust * correlation.clamp(0, 1).square() + (1 - trust)


def mixed_with_evidence(
    disparity: Float[Tensor, "B T 1 H W"],
    share: Float[Tensor, " B"],
    evidence: Evidence,
    rgb: Float[Tensor, "B T 3 H W"],
) -> Float[Tensor, "B T 1 H W"]:
    """The network's disparity to the power of its share, times the evidence alone, spread, to the power of the rest.

    Args:
        disparity: > 0, any unit, already pulled onto the evidence; its unit is kept.
        share: see ``vouched_share``.
    """
    found, weight = log_evidence(evidence)
    field = spread_field(found - _weighted_mean(found, weight), weight, evidence_colours(rgb, weight))
    size = disparity.shape[-2:]
    full = F.interpolate(field.flatten(0, 1)[:, None], size, mode="bilinear").reshape(disparity.shape)
    sure = F.interpolate(weight.flatten(0, 1)[:, None], size, mode="bilinear").reshape(disparity.shape)
    own = disparity.log()
    unit = ((own - full) * sure).flatten(1).sum(1) / sure.flatten(1).sum(1).clamp(min=1e-6)
    alone = full + unit[:, None, None, None, None]
    rest = torch.where(weight.amax((1, 2, 3)) > 0, 1 - share, 0.0)[:, None, None, None, None]
    return (own + rest * (alone - own)).exp()


def tempered(
    disparity: Float[Tensor, "B T 1 H W"], witness: Float[Tensor, "B T 1 H W"], evidence: Evidence
) -> Float[Tensor, "B T 1 H W"]:
    """The answer with evidence to the power of what that is worth by its own word, times the witness to the rest.

    Evidence that states an error like that of the network alone (``ALONE``) counts half, as two equal measurements do;
    the change from one to the other is as steep as the fourth power of their ratio. Without evidence, or without a
    stated error, nothing changes.

    Args:
        disparity: > 0, any unit, which is kept.
        witness: the network's answer without evidence, >= 0, any unit.
        evidence: as it was used.
    """
    if evidence.error is None:
        return disparity
    sure = evidence.depth[:, :, 2].float()
    told = sure.mean((2, 3))
    amount = told.sum(1)
    error = (evidence.error.to(told) * told).sum(1) / amount.clamp(min=1e-9)
    rest = torch.where(amount > 0, 1 - 1 / (1 + (error / ALONE) ** 4), 0.0)[:, None, None, None, None]
    weight = F.interpolate(sure.flatten(0, 1)[:, None], disparity.shape[-2:], mode="nearest-exact")
    weight = weight.reshape(disparity.shape)
    apart = disparity.log() - witness.clamp(min=LEAST_SEEN).log()
    unit = (apart * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1e-6)
    return (disparity.log() - rest * (apart - unit[:, None, None, None, None])).exp()


def log_evidence(evidence: Evidence) -> tuple[Float[Tensor, "B T h w"], Float[Tensor, "B T h w"]]:
    """Log disparity of the evidence, and its confidence; none where the channel says no more than "near"."""
    measured = ((evidence.depth[:, :, 0].float() + 1) / 2).clamp(min=0.01)
    return measured.log(), torch.where(measured < TOP, evidence.depth[:, :, 2].float(), 0.0)


def evidence_colours(
    rgb: Float[Tensor, "B T 3 H W"], weight: Float[Tensor, "B T h w"]
) -> Float[Tensor, "B T 3 h w"]:
    """The pictures at the size of the evidence, in a range of one."""
    small = F.interpolate(rgb.flatten(0, 1).float() / 2, weight.shape[-2:], mode="area")
    return small.unflatten(0, (rgb.shape[0], rgb.shape[1]))


def checkerboard(size: tuple[int, int] | torch.Size, device: torch.device) -> Bool[Tensor, "h w"]:
    """Square blocks, ``BLOCKS`` of them along the shorter side."""
    side = max(1, math.ceil(min(size) / BLOCKS))
    rows, columns = (torch.arange(n, device=device) // side for n in size)
    return (rows[:, None] + columns) % 2 == 0


def _weighted_mean(
    values: Float[Tensor, "B T h w"], weight: Float[Tensor, "B T h w"]
) -> Float[Tensor, "B 1 1 1"]:
    """Of each window; 0 without weight."""
    total = weight.sum((1, 2, 3), keepdim=True)
    return (values * weight).sum((1, 2, 3), keepdim=True) / total.clamp(min=1e-6)


def _own_error(evidence: Evidence, like: Float[Tensor, "B T h w"]) -> Float[Tensor, "B T h w"]:
    """Variance of log disparity that the evidence states of itself, as far as it is local."""
    assert evidence.error is not None
    return (LOCAL * evidence.error[:, ::FRAME_STEP, None, None].to(like)).square().expand_as(like)


def _correlation(
    x: Float[Tensor, "B n"],
    y: Float[Tensor, "B n"],
    weight: Float[Tensor, "B n"],
    noise: Float[Tensor, "B n"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Of x with y without its noise, and the share of y's variance that is not noise.

    About zero, as both are what is left of centred fields; 0 where one of them is empty.

    Args:
        noise: variance of y that says nothing.
    """
    of_x, of_y = (weight * x * x).sum(1), (weight * y * y).sum(1)
    told = (1 - (weight * noise).sum(1) / of_y.clamp(min=1e-9)).clamp(min=0)
    size = (of_x * of_y * told).sqrt()
    return torch.where(size > 1e-9, (weight * x * y).sum(1) / size.clamp(min=1e-9), 0.0), told
