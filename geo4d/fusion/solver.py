"""Damped, reweighted Gauss-Newton on a block-tridiagonal system with a border. Knows no equation of the objective."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.fusion.scratch import Scratch


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
    """Symmetric positive system [[A, C^T], [C, D]] with A banded: the sum of ``Blocks`` of known patterns.

    The band is cut into square blocks as wide as itself, so that A is block-tridiagonal; its Cholesky factor costs
    (unknowns) x (width of the band)^2. Everything is float64 on the CPU, where these small blocks are fastest. In long
    videos the blocks and their factors lie on disk, and a few of them are in memory at a time.
    """

    def __init__(
        self,
        patterns: Sequence[Int[Tensor, "_ _"]],
        num_band: int,
        total: int,
        scratch: Path | None = None,
    ) -> None:
        """
        Args:
            patterns: columns of all pieces that will be summed.
            num_band: unknowns in the band; those after it, up to ``total``, form the border.
            scratch: folder for what is too large to be held; None takes the system's temporary one.
        """
        self.num_band, self.total = num_band, total
        self.num_border = total - num_band
        bandwidth = 0
        for columns in patterns:
            if columns.numel():
                low = torch.where(columns < num_band, columns, num_band).amin(1)
                high = torch.where(columns < num_band, columns, -1).amax(1)
                bandwidth = max(bandwidth, int((high - low).max()))
        # Blocks must be at least as wide as the band; a few wide ones waste less than many that barely fit.
        self.width = max(1, min(bandwidth, num_band))
        self.num_blocks = max(1, -(-num_band // self.width))
        self._diagonal_size = self.num_blocks * self.width**2
        self._border_size = self.num_border * self.num_blocks * self.width
        self._size = 2 * self._diagonal_size + self._border_size + self.num_border**2
        self._store = Scratch((self._size,), np.float64, scratch)
        blocks = (self.num_blocks, self.width, self.width)
        self._factors, self._couplings = (Scratch(blocks, np.float64, scratch) for _ in range(2))
        whole = torch.from_numpy(self._store.array)
        self.diagonal = whole[: self._diagonal_size].view(blocks)
        self.below = whole[self._diagonal_size : 2 * self._diagonal_size].view(blocks)
        start = 2 * self._diagonal_size
        self.border = whole[start : start + self._border_size].view(
            self.num_border, self.num_blocks, self.width
        )
        self.corner = whole[start + self._border_size :].view(self.num_border, self.num_border)

    def _positions(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which entries of the pieces are kept (lower triangle), and where each goes in the flat store."""
        band, border, width = self.num_band, self.num_border, self.width
        # Four bytes where they do: these indices are as many as the entries of the pieces.
        columns = columns.astype(np.int32 if self._size < 2**31 else np.int64)
        row = np.broadcast_to(columns[:, :, None], (*columns.shape, columns.shape[1])).reshape(-1)
        column = np.broadcast_to(columns[:, None, :], (*columns.shape, columns.shape[1])).reshape(-1)
        kept = np.nonzero((row < self.total) & (column < self.total) & ((column <= row) | (row >= band)))[0]
        kept = kept.astype(columns.dtype)
        row, column = row[kept], column[kept]
        inside = row < band
        block_row, block_column = row // width, column // width
        place = (block_column * width + row % width) * width + column % width
        place += np.where(block_row > block_column, self._diagonal_size, 0)
        below = ~inside & (column < band)
        place = np.where(
            below, 2 * self._diagonal_size + (row - band) * (self.num_blocks * width) + column, place
        )
        corner = ~inside & (column >= band)
        base = 2 * self._diagonal_size + self._border_size
        place = np.where(corner, base + (row - band) * border + (column - band), place)
        return kept, place

    def assemble(self, blocks: Iterable[Blocks]) -> None:
        """Sum the pieces; they may come a few at a time."""
        self._store.clear()
        whole = torch.from_numpy(self._store.array)
        gradient = np.zeros(self.total + 1)
        for block in blocks:
            columns = block.columns.cpu().numpy()
            kept, place = self._positions(columns)
            flat = block.hessian.detach().to("cpu", torch.float64).reshape(-1)
            whole.index_add_(0, torch.from_numpy(place), flat[torch.from_numpy(kept)])
            slope = block.gradient.detach().to("cpu", torch.float64).numpy().reshape(-1)
            gradient += np.bincount(columns.reshape(-1), weights=slope, minlength=self.total + 1)
            self._store.touched(flat.numel() * 8)
        self.gradient = gradient[: self.total]
        # Unknowns that fill up the last block.
        spare = self.num_blocks * self.width - self.num_band
        if spare:
            self.diagonal[-1].diagonal()[self.width - spare :] = 1.0
        self._main = torch.empty(self.num_blocks, self.width, dtype=torch.float64)
        for k in range(self.num_blocks):
            self._main[k] = self.diagonal[k].diagonal()
            self._store.touched(8 * self.width**2)

    def solve(self, damping: float, constraint: np.ndarray | None) -> np.ndarray | None:
        """Newton step -(H + damping diag H)^-1 g, kept orthogonal to ``constraint``; None where H is not positive.

        Unknowns that no piece touches do not move.
        """
        corner_main = self.corner.diagonal()
        largest = max(float(self._main.max()), float(corner_main.max()) if self.num_border else 0.0)
        floor = 1e-12 * largest + 1e-300
        corner = self.corner + torch.diag(damping * corner_main + floor)
        sides = [self.gradient] if constraint is None else [self.gradient, constraint]
        right = torch.from_numpy(np.stack(sides, 1))
        padded = torch.zeros(self.num_blocks * self.width, len(sides) + self.num_border, dtype=torch.float64)
        padded[: self.num_band, : len(sides)] = right[: self.num_band]
        padded[:, len(sides) :] = self.border.reshape(self.num_border, len(padded)).T
        inner = self._solve_band(damping, floor, padded.view(self.num_blocks, self.width, -1))
        if inner is None:
            return None
        inner = inner.reshape(self.num_blocks * self.width, -1)
        right_band, border_band = inner[:, : len(sides)], inner[:, len(sides) :]
        if self.num_border:
            border = self.border.reshape(self.num_border, len(padded))
            factor, failed = torch.linalg.cholesky_ex(corner - border @ border_band)
            if int(failed):
                return None
            border_part = torch.cholesky_solve(right[self.num_band :] - border @ right_band, factor)
            band_part = right_band - border_band @ border_part
            solution = torch.cat([band_part[: self.num_band], border_part]).numpy()
        else:
            solution = right_band[: self.num_band].numpy()
        step = -solution[:, 0]
        if constraint is not None:
            along = float(constraint @ solution[:, 1])
            if along > 0:
                step = step - solution[:, 1] * (float(constraint @ step) / along)
        return step if np.isfinite(step).all() else None

    def _solve_band(
        self, damping: float, floor: float, right: Float[Tensor, "K w s"]
    ) -> Float[Tensor, "K w s"] | None:
        """Block Cholesky, forward and backward substitution; None where the damped band is not positive.

        ``right`` is overwritten.
        """
        factors = torch.from_numpy(self._factors.array)
        couplings = torch.from_numpy(self._couplings.array)
        block_bytes = 8 * self.width**2
        for k in range(self.num_blocks):
            block = self.diagonal[k].clone()
            block.diagonal().add_(damping * self._main[k] + floor)
            if k:
                # L21 = below L11^-T
                coupling = torch.linalg.solve_triangular(factors[k - 1], self.below[k - 1].T, upper=False).T
                couplings[k - 1] = coupling
                block = block - coupling @ coupling.T
                right[k] -= coupling @ right[k - 1]
            factor, failed = torch.linalg.cholesky_ex(block)
            if int(failed):
                return None
            factors[k] = factor
            right[k] = torch.linalg.solve_triangular(factor, right[k], upper=False)
            for store in (self._store, self._factors, self._couplings):
                store.touched(2 * block_bytes)
        for k in reversed(range(self.num_blocks)):
            if k + 1 < self.num_blocks:
                right[k] -= couplings[k].T @ right[k + 1]
            right[k] = torch.linalg.solve_triangular(factors[k].T, right[k], upper=True)
            for store in (self._factors, self._couplings):
                store.touched(block_bytes)
        return right


StateT = TypeVar("StateT")


@runtime_checkable
class Problem(Protocol[StateT]):
    """What the solver must be able to ask. ``width`` is where a norm stops being sharp (reweighting floor)."""

    def evaluate(self, state: StateT, width: float) -> tuple[float, StateT]:
        """Cost, and the state with everything the next linearisation needs."""
        ...

    def linearise(self, state: StateT, width: float) -> Iterable[Blocks]:
        """Normal equations at an evaluated state, a few pieces at a time."""
        ...

    def system(self) -> BorderedBandSystem:
        """An empty system with the pattern of ``linearise``."""
        ...

    def constraint(self) -> np.ndarray | None:
        """Direction that steps must be orthogonal to (a free scale), or None."""
        ...

    def retract(self, state: StateT, step: np.ndarray) -> StateT:
        """The state after a step, not yet evaluated."""
        ...


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
