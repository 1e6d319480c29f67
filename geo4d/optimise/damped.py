"""The loop: linearise, solve with damping, keep what costs less. Knows no equation and no matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

StateT = TypeVar("StateT")

LEAST_DAMPING = 1e-7
"""Share of the diagonal that is added at least: far below what any data says, far above rounding."""

RAISED_DAMPING = 1e-4
"""After a step that costs more the damping is at least this: less would not change the step."""

LESS, MORE = 5.0, 10.0
"""What the damping is divided by after a step that costs less, and multiplied by after one that costs more."""

TRIES = 6
"""Dampings tried from one linearisation."""

SLACK = 1e-4
"""While the width falls a step that is right for the sharper cost may cost this share more."""


@runtime_checkable
class Problem(Protocol[StateT]):
    """What the loop must be able to ask. ``width`` is where the kernels stop being sharp."""

    def evaluate(self, state: StateT, width: float) -> tuple[float, StateT]:
        """Cost, and the state with everything that the next linearisation needs."""
        ...

    def linearise(self, state: StateT, width: float) -> Callable[[float], StateT | None]:
        """A function from a damping to the state after its step, or None where there is no such step."""
        ...


@dataclass(frozen=True)
class SolveReport:
    """How a solve went: cost before and after, steps taken, and why it ended."""

    cost_start: float
    cost_end: float
    num_steps: int
    reason: str


def minimise(
    problem: Problem[StateT],
    state: StateT,
    *,
    num_steps: int,
    widths: tuple[float, float],
    damping: float,
    tolerance: float,
    least_steps: int = 0,
) -> tuple[StateT, SolveReport]:
    """Reweighted Gauss-Newton steps with falling width and adaptive damping (Levenberg-Marquardt).

    Args:
        num_steps: at most.
        widths: of the kernels at the first and the last step, falling geometrically; twice the same number holds it.
        damping: at first, share of the diagonal.
        tolerance: stop when the width is near its end and the cost fell by less than this share.
        least_steps: before that.
    """
    first, last = widths
    slack = SLACK if first != last else 0.0
    cost, state = problem.evaluate(state, first)
    cost_start = cost
    taken, reason = 0, "steps used up"
    for number in range(num_steps):
        width = first * (last / first) ** (number / max(1, num_steps - 1))
        step = problem.linearise(state, width)
        accepted = None
        for _ in range(TRIES):
            moved = step(damping)
            if moved is not None:
                trial_cost, trial = problem.evaluate(moved, width)
                if math.isfinite(trial_cost) and trial_cost < cost * (1 + slack):
                    accepted = trial_cost, trial
                    break
            damping = max(damping * MORE, RAISED_DAMPING)
        if accepted is None:
            reason = "no step lowers the cost"
            break
        fall = (cost - accepted[0]) / max(cost, 1e-30)
        cost, state = accepted
        taken += 1
        damping = max(damping / LESS, LEAST_DAMPING)
        if taken > least_steps and abs(fall) < tolerance and width <= 4 * last:
            reason = "converged"
            break
    return state, SolveReport(cost_start, cost, taken, reason)
