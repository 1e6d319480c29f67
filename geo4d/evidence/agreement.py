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
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.neighbours import mean_around

SURE = 0.3
"""Confidence from which evidence is not asked, and speaks for its surroundings."""
STEP = 0.3
"""Difference of logarithms from which unsure evidence contradicts."""
SUSPECT = 0.25
"""Probability of moving from which "farther" is a contradiction, too."""


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
    expected, known = mean_around(log, torch.where(confidence >= SURE, confidence, 0.0))
    step = log - expected
    may_move = torch.zeros_like(known) if moving is None else moving >= SUSPECT
    against = torch.where(may_move, step <= -STEP, step >= STEP)
    return ~(known & against & (confidence < SURE))
