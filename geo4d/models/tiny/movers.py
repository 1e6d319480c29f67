"""Depth from motion is not believed on what may move where the pictures speak against it.

A plane sweep takes the world to stand still. Somebody who walks along with the camera is followed well, and far behind
everything; somebody who comes nearer is matched badly, and stands in front. Where flow and cameras say that a pixel may
move, its step against what stands still around it is compared with the step that the network sees without evidence.
Evidence is left out that is farther, though the network sees the pixel before its surroundings; and evidence that is
nearer, and far less sure than its surroundings.

Why not whatever differs: behind a doorway whose flow was wrong that cost .03 in delta (.786 to .757, the tartanair
sample), this costs .002. Measured on single windows by ``benchmarks/vouched.py``:
``benchmarks/results/2026-11-28-movers.md``.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.geometry.neighbours import mean_around
from geo4d.models.devices import has_float64
from geo4d.models.tiny.network import Evidence
from geo4d.models.tiny.vouched import LEAST_SEEN, log_evidence

SUSPECT = 0.1
"""Probability of moving from which evidence needs the witness; what is less likely to move is what stands still."""
STEP = 0.3
"""Difference of logarithms of the two steps from which evidence is left out."""
LESS_SURE = 0.4
"""Share of the confidence around it below which evidence that is nearer is left out."""


def contradicted(
    witness: Float[Tensor, "B T 1 H W"], evidence: Evidence, moving: Float[Tensor, "B T h w"]
) -> Bool[Tensor, "B T h w"]:
    """Evidence on what may move whose step against its still surroundings is another one than the witness's.

    Args:
        witness: the network's disparity without any evidence, >= 0, any unit.
        evidence: its depth channels are used.
        moving: probability of moving, at the size of the depth channels.
    """
    found, weight = log_evidence(evidence)
    small = F.interpolate(witness.flatten(0, 1).float(), weight.shape[-2:], mode="area")
    seen = small.reshape(weight.shape).clamp(min=LEAST_SEEN).log()
    suspect = moving >= SUSPECT
    still = torch.where(suspect, 0.0, weight)
    around, known = mean_around(torch.stack([found, seen]), still.expand(2, *still.shape))
    by_sweep, by_witness = found - around[0], seen - around[1]
    farther = (by_witness > 0) & (by_witness - by_sweep > STEP)
    sure, _ = mean_around(weight, (~suspect).to(weight))
    nearer = (weight < LESS_SURE * sure) & (by_sweep - by_witness > STEP)
    return suspect & known[0] & (farther | nearer)


def without_contradicted(witness: Float[Tensor, "B T 1 H W"], evidence: Evidence) -> Evidence:
    """The evidence without what ``contradicted`` says; the same where nobody looked for what moves."""
    if evidence.moving is None:
        return evidence
    there = evidence.depth.device
    home = there if has_float64(there) else torch.device("cpu")
    kept = ~contradicted(witness.to(home), evidence.to(home), evidence.moving.to(home)).to(there)
    return replace(evidence, depth=evidence.depth * kept[:, :, None])
