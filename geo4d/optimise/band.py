"""Symmetric positive systems with a band and a border: block Cholesky, and the sum of small dense pieces.

``factor_band`` and ``solve_bordered`` are the one solver of the package; ``BorderedBandSystem`` sums pieces that touch
any unknowns and may lie on disk, the adjustment of cameras (``cameras/bundle.py``) sums dense runs of cameras itself.

Axis names: K blocks of the band, w unknowns of each, b unknowns of the border, s right sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.optimise.scratch import Scratch


@dataclass(frozen=True)
class BandFactor:
    """Cholesky factor of a block-tridiagonal matrix: the lower triangles, and what couples each block to the one before.

    Attributes:
        lower: of the diagonal blocks.
        coupling: left of each, from the second on.
        stores: that they lie in, if not in memory.
    """

    lower: Float[Tensor, "K w w"]
    coupling: Float[Tensor, "K w w"]
    stores: tuple[Scratch, ...] = ()

    def solve(self, right: Float[Tensor, "K w s"]) -> Float[Tensor, "K w s"]:
        """The solution for some right sides, which are overwritten."""
        num_blocks, width, _ = self.lower.shape
        for k in range(num_blocks):
            if k:
                right[k] -= self.coupling[k - 1] @ right[k - 1]
            right[k] = torch.linalg.solve_triangular(self.lower[k], right[k], upper=False)
            self._touched(8 * width**2)
        for k in reversed(range(num_blocks)):
            if k + 1 < num_blocks:
                right[k] -= self.coupling[k].T @ right[k + 1]
            right[k] = torch.linalg.solve_triangular(self.lower[k].T, right[k], upper=True)
            self._touched(8 * width**2)
        return right

    def _touched(self, num_bytes: int) -> None:
        for store in self.stores:
            store.touched(num_bytes)


def factor_band(
    diagonal: Callable[[int], Float[Tensor, "w w"]],
    below: Float[Tensor, "_ w w"],
    stores: tuple[Scratch, Scratch] | None = None,
    *,
    num_blocks: int | None = None,
) -> BandFactor | None:
    """Factor a block-tridiagonal matrix; None where it is not positive definite.

    Args:
        diagonal: the diagonal block of a number, a copy of its own.
        below: block k is left of diagonal block k + 1.
        stores: for the lower triangles and the couplings, [K, w, w] each; None makes them in memory.
        num_blocks: K; needed without stores.
    """
    if stores is None:
        assert num_blocks is not None
        width = diagonal(0).shape[-1] if num_blocks else 0
        lower = torch.empty(num_blocks, width, width, dtype=torch.float64)
        coupling = torch.empty_like(lower)
    else:
        lower, coupling = (torch.from_numpy(store.array) for store in stores)
    factor = BandFactor(lower, coupling, stores or ())
    for k in range(len(lower)):
        block = diagonal(k)
        if k:
            # L21 = below L11^-T
            left = torch.linalg.solve_triangular(lower[k - 1], below[k - 1].T, upper=False).T
            coupling[k - 1] = left
            block = block - left @ left.T
        found, failed = torch.linalg.cholesky_ex(block)
        if int(failed):
            return None
        lower[k] = found
        factor._touched(2 * 8 * block.numel())
    return factor


def solve_bordered(
    factor: BandFactor,
    border: Float[Tensor, "b n"],
    corner: Float[Tensor, "b b"],
    right: Float[Tensor, "n s"],
    right_border: Float[Tensor, "b s"],
    *,
    limit: float | None = None,
) -> tuple[Float[Tensor, "n s"], Float[Tensor, "b s"]] | None:
    """Solve [[A, C^T], [C, D]] x = r for a factored band A; None where what is left of the corner is not positive.

    Args:
        border, corner: C and D.
        limit: largest step of an unknown of the border; the band is solved for the step that is taken.
    """
    num_border, sides = len(border), right.shape[1]
    blocks = (len(factor.lower), factor.lower.shape[1], sides + num_border)
    inner = factor.solve(torch.cat([right, border.T], 1).reshape(blocks)).reshape(len(right), -1)
    band, by_border = inner[:, :sides], inner[:, sides:]
    if num_border == 0:
        return band, right_border
    found, failed = torch.linalg.cholesky_ex(corner - border @ by_border)
    if int(failed):
        return None
    step = torch.cholesky_solve(right_border - border @ band, found)
    if limit is not None:
        step = step.clamp(-limit, limit)
    return band - by_border @ step, step


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

        def damped(k: int) -> Tensor:
            block = self.diagonal[k].clone()
            block.diagonal().add_(damping * self._main[k] + floor)
            self._store.touched(2 * 8 * self.width**2)
            return block

        factor = factor_band(damped, self.below, (self._factors, self._couplings))
        if factor is None:
            return None
        sides = [self.gradient] if constraint is None else [self.gradient, constraint]
        right = torch.from_numpy(np.stack(sides, 1))
        padded = torch.zeros(self.num_blocks * self.width, len(sides), dtype=torch.float64)
        padded[: self.num_band] = right[: self.num_band]
        found = solve_bordered(
            factor,
            self.border.reshape(self.num_border, len(padded)),
            self.corner + torch.diag(damping * corner_main + floor),
            padded,
            right[self.num_band :],
        )
        if found is None:
            return None
        solution = torch.cat([found[0][: self.num_band], found[1]]).numpy()
        step = -solution[:, 0]
        if constraint is not None:
            along = float(constraint @ solution[:, 1])
            if along > 0:
                step = step - solution[:, 1] * (float(constraint @ step) / along)
        return step if np.isfinite(step).all() else None
