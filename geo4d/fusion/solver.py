"""Damped, reweighted Gauss-Newton on a banded system with a border. Knows no equation of the objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """Dense pieces of the normal equations: B pieces that each touch k unknowns.

    Attributes:
        columns: which unknowns; the number of all unknowns stands for "held fixed".
        hessian: J^T W J.
        gradient: J^T W r.
    """

    columns: Int[Tensor, "B k"]
    hessian: Float[Tensor, "B k k"]
    gradient: Float[Tensor, "B k"]


class BorderedBandSystem:
    """Symmetric positive system [[A, C^T], [C, D]] with A banded: the sum of ``Blocks`` of a fixed pattern.

    Cost is linear in the number of band unknowns and quadratic in the band width. The scatter positions are worked
    out once per pattern.
    """

    def __init__(self, patterns: Sequence[Int[Tensor, "B k"]], num_band: int, total: int) -> None:
        self.num_band, self.total = num_band, total
        self.num_border = total - num_band
        self.bandwidth = 0
        for columns in patterns:
            low = torch.where(columns < num_band, columns, num_band).amin(1)
            high = torch.where(columns < num_band, columns, -1).amax(1)
            if len(columns):
                self.bandwidth = max(self.bandwidth, int((high - low).max().clamp(min=0)))
        self.positions = [self._positions(columns.cpu().numpy()) for columns in patterns]
        self.gradient_positions = [columns.cpu().numpy().reshape(-1) for columns in patterns]
        self._band_size = (self.bandwidth + 1) * num_band
        self._border_size = self.num_border * num_band

    def _positions(self, columns: np.ndarray) -> np.ndarray:
        """Where each entry of a block goes in the flat store (band, border, corner, waste)."""
        band, border = self.num_band, self.num_border
        band_size, border_size = (self.bandwidth + 1) * band, border * band
        waste = band_size + border_size + border * border
        row = np.broadcast_to(columns[:, :, None], (*columns.shape, columns.shape[1]))
        column = np.broadcast_to(columns[:, None, :], row.shape)
        # Lower triangle only; scipy's banded form stores A[i, j] at [i - j, j].
        position = np.full(row.shape, waste, dtype=np.int64)
        inside = (row < band) & (column <= row)
        position[inside] = ((row - column) * band + column)[inside]
        below = (row >= band) & (row < self.total) & (column < band)
        position[below] = (band_size + (row - band) * band + column)[below]
        corner = (row >= band) & (row < self.total) & (column >= band) & (column < self.total)
        position[corner] = (band_size + border_size + (row - band) * border + (column - band))[corner]
        return position.reshape(-1)

    def assemble(self, blocks: Sequence[Blocks]) -> None:
        """Sum the blocks, given in the order of the patterns."""
        size = self._band_size + self._border_size + self.num_border**2
        store = np.zeros(size + 1)
        gradient = np.zeros(self.total + 1)
        for block, positions, rows in zip(blocks, self.positions, self.gradient_positions, strict=True):
            values = block.hessian.detach().to("cpu", torch.float64).numpy().reshape(-1)
            store += np.bincount(positions, weights=values, minlength=size + 1)
            values = block.gradient.detach().to("cpu", torch.float64).numpy().reshape(-1)
            gradient += np.bincount(rows, weights=values, minlength=self.total + 1)
        self.band = store[: self._band_size].reshape(self.bandwidth + 1, self.num_band)
        self.border = store[self._band_size : self._band_size + self._border_size].reshape(-1, self.num_band)
        self.corner = store[self._band_size + self._border_size : size].reshape(self.num_border, -1)
        self.gradient = gradient[: self.total]

    def solve(self, damping: float, constraint: np.ndarray | None) -> np.ndarray | None:
        """Newton step -(H + damping diag H)^-1 g, kept orthogonal to ``constraint``; None where H is not positive.

        Unknowns that no block touches do not move.
        """
        band = self.band.copy()
        band_floor = 1e-12 * max(
            float(self.band[0].max(initial=0.0)), float(np.diag(self.corner).max(initial=0.0))
        )
        band[0] += damping * self.band[0] + band_floor + 1e-300
        corner = self.corner + np.diag(damping * np.diag(self.corner) + band_floor + 1e-300)
        sides = [self.gradient] if constraint is None else [self.gradient, constraint]
        right = np.stack(sides, 1)
        try:
            factor = scipy.linalg.cholesky_banded(band, lower=True, check_finite=False, overwrite_ab=True)
            stacked = np.concatenate([right[: self.num_band], self.border.T], 1)
            inner = scipy.linalg.cho_solve_banded((factor, True), stacked, check_finite=False)
            right_band, border_band = inner[:, : len(sides)], inner[:, len(sides) :]
            solution = np.empty_like(right)
            if self.num_border:
                schur = corner - self.border @ border_band
                border_part = scipy.linalg.solve(
                    schur,
                    right[self.num_band :] - self.border @ right_band,
                    assume_a="pos",
                    check_finite=False,
                )
                solution[self.num_band :] = border_part
                solution[: self.num_band] = right_band - border_band @ border_part
            else:
                solution[: self.num_band] = right_band
        except np.linalg.LinAlgError:
            return None
        step = -solution[:, 0]
        if constraint is not None:
            along = float(constraint @ solution[:, 1])
            if along > 0:
                step = step - solution[:, 1] * (float(constraint @ step) / along)
        return step if np.isfinite(step).all() else None


StateT = TypeVar("StateT")


class Problem(Protocol, Generic[StateT]):
    """What the solver must be able to ask. ``width`` is where a norm stops being sharp (reweighting floor)."""

    def evaluate(self, state: StateT, width: float) -> tuple[float, StateT]:
        """Cost, and the state with everything the next linearisation needs."""
        ...

    def linearise(self, state: StateT, width: float) -> list[Blocks]: ...

    def system(self) -> BorderedBandSystem: ...

    def constraint(self) -> np.ndarray | None: ...

    def retract(self, state: StateT, step: np.ndarray) -> StateT: ...


@dataclass(frozen=True)
class SolveReport:
    """How a solve went: cost before and after, steps taken, and why it ended."""

    cost_start: float
    cost_end: float
    num_steps: int
    reason: str


def gauss_newton(
    problem: Problem[StateT],
    state: StateT,
    *,
    num_steps: int,
    width_start: float,
    width_end: float,
    damping: float = 1e-4,
    tolerance: float = 2e-5,
) -> tuple[StateT, SolveReport]:
    """Minimise a sum of norms by reweighted Gauss-Newton steps with falling width and adaptive damping.

    Args:
        num_steps: at most.
        width_start, width_end: reweighting floor of the first and last step, falling geometrically.
        tolerance: stop when the width is near its end and the cost fell by less than this share.
    """
    cost, state = problem.evaluate(state, width_start)
    cost_start = cost
    system, constraint = problem.system(), problem.constraint()
    taken, reason = 0, "steps used up"
    for number in range(num_steps):
        width = width_start * (width_end / width_start) ** (number / max(1, num_steps - 1))
        system.assemble(problem.linearise(state, width))
        accepted = None
        for _ in range(6):
            step = system.solve(damping, constraint)
            if step is not None:
                trial_cost, trial = problem.evaluate(problem.retract(state, step), width)
                # The width falls, so that a step which is right for the sharper cost may cost a trifle.
                if trial_cost < cost * (1 + 1e-4):
                    accepted = trial_cost, trial
                    break
            damping = max(damping * 10, 1e-4)
        if accepted is None:
            reason = "no step lowers the cost"
            break
        fall = (cost - accepted[0]) / max(cost, 1e-30)
        cost, state = accepted
        taken += 1
        damping = max(damping / 5, 1e-7)
        if number > 3 and abs(fall) < tolerance and width <= 4 * width_end:
            reason = "converged"
            break
    return state, SolveReport(cost_start, cost, taken, reason)
