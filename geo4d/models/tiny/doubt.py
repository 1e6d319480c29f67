"""When not to believe confident evidence: depths that contradict the pictures, and whose own error could explain it.

Evidence from motion states how well it knows its depths (the noise of the tracks, the cameras and the focal length, at
the parallax of each pixel). Where that carries what it says, it is believed, whatever the pictures look like: a network
can be wrong. Where it does not, the network's answer without evidence is the witness: a frame whose evidence varies far
less than that answer does on the same pixels, or runs against it, loses its depth evidence. If most of a window's
evidence goes, the camera positions, which came from the same mistake, go too; the rotations stay.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.models.tiny.anchor import TOP
from geo4d.models.tiny.network import Evidence

MIN_COVERAGE = 0.04
"""Mean confidence of a frame below which its evidence is too little to judge."""
MIN_DEPTH = 0.15
"""Spread of the witness's log disparity below which a flat scene is believable."""
FLAT = 0.35
"""Evidence with less than this share of the witness's spread is flat."""
AGAINST = -0.3
"""Correlation with the witness below which evidence runs against it."""
CARRIED = 3.0
"""Depth that is so many times larger than its own error is known, not guessed: standard deviations."""
MOST = 0.5
"""Share of doubted evidence from which the positions go."""


def doubted_frames(
    disparity: Float[Tensor, "B T 1 H W"], evidence: Evidence
) -> tuple[Bool[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Frames whose evidence is not to be believed, and how much evidence each frame has.

    Args:
        disparity: the answer without evidence, >= 0.
        evidence: its depth channels and its own error are used; where it states none, its confidence stands for it.
    """
    measured = ((evidence.depth[:, :, 0].float() + 1) / 2).clamp(min=0.01)
    weight = torch.where(measured < TOP, evidence.depth[:, :, 2].float(), 0.0).flatten(2)
    small = F.interpolate(disparity.flatten(0, 1).float(), measured.shape[-2:], mode="area")
    witness = small.reshape(measured.shape).clamp(min=0.01).log().flatten(2)
    found = measured.log().flatten(2)
    total = weight.sum(-1).clamp(min=1e-6)

    def centred(values: Tensor) -> Tensor:
        return values - ((values * weight).sum(-1) / total)[..., None]

    witness, found = centred(witness), centred(found)
    spread = [((part**2 * weight).sum(-1) / total).sqrt() for part in (witness, found)]
    correlation = (witness * found * weight).sum(-1) / total / (spread[0] * spread[1]).clamp(min=1e-6)
    error = _error_of(weight, total) if evidence.error is None else evidence.error
    deep = (spread[0] > MIN_DEPTH) & (weight.mean(-1) > MIN_COVERAGE)
    # Flat evidence says that there is no such depth as the witness sees, the other that there is its own.
    flat = (spread[1] < FLAT * spread[0]) & (spread[0] < CARRIED * error)
    against = (correlation < AGAINST) & (spread[1] < CARRIED * error)
    return deep & (flat | against), weight.mean(-1)


def _error_of(weight: Float[Tensor, "B T n"], total: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Spread of log disparity of which a confidence, the probability of being within 25 %, would be right."""
    confidence = ((weight**2).sum(-1) / total).clamp(0.01, 0.99)
    return 0.2 / math.sqrt(2) / torch.erfinv(confidence)


def believed(disparity: Float[Tensor, "B T 1 H W"], evidence: Evidence) -> Evidence:
    """The evidence without what is doubted."""
    doubted, amount = doubted_frames(disparity, evidence)
    lost = (amount * doubted).sum(1) / amount.sum(1).clamp(min=1e-6) > MOST
    kept = ~(doubted | lost[:, None])
    depth = evidence.depth * kept[:, :, None, None, None]
    cameras = evidence.cameras.clone()
    for positions in (slice(3, 6), slice(7, 8)):  # the moments, and the trust in them
        cameras[:, :, positions] *= ~lost[:, None, None, None, None]
    return replace(evidence, depth=depth, cameras=cameras)
