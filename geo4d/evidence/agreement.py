"""Unsure evidence is believed only where sure evidence around it does not speak against it.

A sweep that matched by chance is unsure, and in the result it has the place to itself: the field that spreads evidence
(``models/tiny/anchor.py``) follows a weak pixel where no strong one is near. Measured on 12 rendered clips with the
default run's cameras, share of unsure pixels within 25 % of the truth: .89 where they agree with the sure ones around
them and nothing moves, .11 to .19 where they say nearer by 35 % or more, .75 where they say farther (doorways are like
that) and nothing moves, but .42 to .51 where the picture may move: a walker who comes nearer looks far. Movers that look
near stay: they are often right, and what would take their place is the wall behind them.

Effect on single windows (``benchmarks/vouched.py``), within 25 %, all / without evidence / movers, on the 24 rendered
clips that chose the rule out of two: .759 / .491 / .518 before, .761 / .498 / .524 after; samples, looked at with it,
.888 / .655 and then .889 / .658. "Without evidence" counts more pixels after than before.
On ten clips drawn afterwards (numbers 100 to 109 of ``benchmarks/confidence.py``'s) it is a tie, .572 / .438 / .485 and
then .571 / .445 / .487; evidence alone .556 / .418 / .418.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

SURE = 0.3
"""Confidence from which evidence is not asked, and speaks for its surroundings."""
STEP = 0.3
"""Difference of logarithms from which unsure evidence contradicts."""
SUSPECT = 0.25
"""Probability of moving from which "farther" is a contradiction, too."""
RADII = (2, 4, 8, 16, 32)
"""Neighbourhoods (pixels of maps about a hundred rows high), the first with ``ENOUGH`` sure evidence counts."""
ENOUGH = 4.0


def agreeing(
    disparity: Float[Tensor, "H W"],
    confidence: Float[Tensor, "H W"],
    moving: Float[Tensor, "H W"] | None = None,
) -> Bool[Tensor, "H W"]:
    """Where evidence is sure, or is not contradicted by sure evidence around it: "nearer" contradicts what stands still,
    "farther" what may move.

    Args:
        disparity: > 0, any unit.
        confidence: in [0, 1].
        moving: probability that a pixel moves; None is "nothing does".
    """
    log = disparity.clamp(min=1e-12).log()
    expected, known = _around(log, torch.where(confidence >= SURE, confidence, 0.0))
    step = log - expected
    may_move = torch.zeros_like(known) if moving is None else moving >= SUSPECT
    against = torch.where(may_move, step <= -STEP, step >= STEP)
    return ~(known & against & (confidence < SURE))


def _around(
    values: Float[Tensor, "H W"], weight: Float[Tensor, "H W"]
) -> tuple[Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """Weighted means over the smallest neighbourhood with enough weight, and where there is one."""
    height, width = values.shape
    mean, known = torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool)
    # Sums over all pixels above and to the left: a box of any size is the difference of four of them.
    sums = torch.stack([weight, weight * values]).double().cumsum(1).cumsum(2)
    sums = F.pad(sums, (1, 0, 1, 0))
    for radius in RADII:
        top, bottom = _ends(height, radius, values.device)
        left, right = _ends(width, radius, values.device)
        rows = sums.index_select(1, bottom) - sums.index_select(1, top)
        mass, total = (rows.index_select(2, right) - rows.index_select(2, left)).to(values.dtype)
        first = (mass >= ENOUGH) & ~known
        mean = torch.where(first, total / mass.clamp(min=1e-9), mean)
        known |= first
    return mean, known


def _ends(length: int, radius: int, device: torch.device) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Of the stretch within ``radius`` of every position, cut at the borders: where it begins, and behind its end."""
    at = torch.arange(length, device=device)
    return (at - radius).clamp(min=0), (at + radius + 1).clamp(max=length)
