"""Bundle adjustment: cameras, one focal length and points from 2D observations, by Levenberg-Marquardt.

Points are homogeneous unit 4-vectors in the world, so a point at infinity is as ordinary as a near one and a camera
that only turns is not a special case. Points are eliminated (Schur complement); what is left couples only cameras that
share a track, so it is banded and the cost grows linearly with the number of frames.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import (
    AT_ONCE,
    BundleState,
    PointTerm,
    Prior,
    reprojection_error,
    robust_cost,
    seen_by,
    usual_terms,
)
from geo4d.geometry.poses import so3_exp
from geo4d.optimise.band import BandFactor, factor_band, solve_bordered
from geo4d.optimise.damped import minimise
from geo4d.optimise.manifold import mirror_of, moved_on_sphere, tangent_of
from geo4d.optimise.scratch import Scratch, give_back_memory
from geo4d.optimise.small import cholesky_3x3, solve_3x3, sum_outer, whiten


@dataclass(frozen=True)
class BundleConfig:
    """Settings of one adjustment.

    Attributes:
        num_iterations: at most.
        robust_width: Cauchy width, pixels.
        focal: ``fixed``, one ``shared`` by all cameras, or ``per_frame``.
        focal_prior: (focal in pixels, spread of its logarithm), or None.
        prior_strength: how many pixels-squared of summed robust cost one standard deviation of the prior is worth.
        focal_smoothness: ``per_frame``: spread of the change of log focal from camera to camera.
        radial_prior: spread of the radial coefficient around 0; 0 leaves it as it is.
        with_translation: False holds all camera centres (pure rotation).
        group: cameras per block of points when the Schur complement is formed.
        tolerance: stop when the cost falls by less than this share.
        damping: at first, share of the diagonal. What few pixels tell, the scale from camera to camera for one, moves
            only once it is small.
        reliability: also find ``log_focal_spread`` and ``pose_information``, worth two more steps.
        scratch: folder for what is too large to be held in memory; None takes the system's temporary one.
    """

    num_iterations: int = 30
    robust_width: float = 1.0
    focal: str = "shared"
    focal_prior: tuple[float, float] | None = None
    prior_strength: float = 1.0
    focal_smoothness: float = 0.2
    radial_prior: float = 0.0
    with_translation: bool = True
    group: int = 12
    tolerance: float = 1e-5
    damping: float = 1e-3
    reliability: bool = True
    scratch: Path | None = None


@dataclass(frozen=True)
class BundleResult:
    """What came out.

    Attributes:
        state: the unknowns.
        cost: robust cost, pixels squared, priors not included.
        total_cost: with priors.
        error: reprojection error of every observation, pixels; infinite behind the camera.
        log_focal_spread: standard deviation of log focal given unit pixel noise, infinite when it was not estimated.
        pose_information: per camera, Schur-complement block of (translation, rotation) in pixels squared per unit;
            zero when it was not asked for.
        num_iterations: steps tried.
    """

    state: BundleState
    cost: float
    total_cost: float
    error: Float[Tensor, " O"]
    log_focal_spread: float
    pose_information: Float[Tensor, "N 6 6"]
    num_iterations: int


LARGEST_STEP = 0.3
"""Largest change of a log focal length or a radial coefficient in one step: beyond it the tangent says nothing."""

LARGEST_RADIAL = 0.5
"""Largest radial coefficient that is looked for: a barrel that shrinks the edges of a wide picture by a half."""


@dataclass(frozen=True)
class Layout:
    """Where each unknown stands in the system.

    Attributes:
        size: unknowns of each camera: translation (3), rotation (3), and its focal length if that is its own.
        focal: column of the log focal length; None where it is fixed.
        radial: column of the radial coefficient; None where it is held.
        num_border: unknowns that all cameras share; their columns come after those of the camera.
    """

    size: int
    focal: int | None
    radial: int | None
    num_border: int

    @staticmethod
    def of(config: BundleConfig) -> Layout:
        """For the unknowns that a config frees."""
        size = 7 if config.focal == "per_frame" else 6
        shared = [name for name, on in _shared_unknowns(config).items() if on]
        column = {name: size + k for k, name in enumerate(shared)}
        focal = {"fixed": None, "per_frame": 6}.get(config.focal, column.get("focal"))
        return Layout(size, focal, column.get("radial"), len(shared))

    @property
    def border(self) -> slice:
        """Columns of what all cameras share."""
        return slice(self.size, self.size + self.num_border)


def _shared_unknowns(config: BundleConfig) -> dict[str, bool]:
    return {"focal": config.focal == "shared", "radial": config.radial_prior > 0}


_ALIKE = 3
"""Points of one block are seen for about as long, to so many groups of cameras: its tables are dense then."""

_W_RESIDENT = 2**22
"""Bytes of the couplings that are in memory at a time: what the blocks of a run of cameras share."""


@dataclass(frozen=True)
class _Block:
    """Points whose first cameras, and last ones, are near each other: their observations, by cell of a [cameras, points]
    table."""

    members: Int[Tensor, " M"]
    rows: Int[Tensor, " R"]
    cell: Int[Tensor, " R"]
    low: int
    high: int


def _blocks_of(observations: Observations, num_cameras: int, num_points: int, group: int) -> list[_Block]:
    """Index tables that depend only on who saw what: blocks of points with the cameras that they touch."""
    camera, point = observations.camera, observations.point
    first = torch.full((num_points,), num_cameras, dtype=torch.long).scatter_reduce(
        0, point, camera, "amin", include_self=True
    )
    last = torch.zeros(num_points, dtype=torch.long).scatter_reduce(0, point, camera, "amax")
    local = torch.empty(num_points, dtype=torch.long)
    length = (last - first).clamp_min(0).div(_ALIKE * group, rounding_mode="floor")
    block_of = first.div(group, rounding_mode="floor") * (int(length.max()) + 1) + length
    seen = torch.zeros(num_points, dtype=torch.bool)
    seen[point] = True
    blocks = []
    for b in block_of[seen].unique().tolist():
        members = ((block_of == b) & seen).nonzero()[:, 0]
        low, high = int(first[members].min()), int(last[members].max()) + 1
        local[members] = torch.arange(len(members))
        rows = (block_of[point] == b).nonzero()[:, 0]
        blocks.append(
            _Block(members, rows, (camera[rows] - low) * len(members) + local[point[rows]], low, high)
        )
    return blocks


def bundle_adjust(
    state: BundleState,
    observations: Observations,
    *,
    fixed: Bool[Tensor, " N"] | None = None,
    config: BundleConfig | None = None,
) -> BundleResult:
    """Minimise the robust reprojection error over cameras, focal length and points.

    Args:
        state: start; cameras in the order of time, so that cameras sharing points are near in index.
        observations: what was seen.
        fixed: cameras that stay; None holds the first. The overall scale is left to the damping.
        config: see ``BundleConfig``.
    Returns:
        the adjusted state with its errors; never worse than the start in robust cost.
    """
    config = config or BundleConfig()
    num_cameras = len(state.w2c)
    if fixed is None:
        fixed = torch.zeros(num_cameras, dtype=torch.bool)
        fixed[0] = True
    problem = BundleProblem(observations, fixed, config, num_cameras, len(state.points))
    width = config.robust_width
    state, report = minimise(
        problem,
        state,
        num_steps=config.num_iterations,
        widths=(width, width),
        damping=config.damping,
        tolerance=config.tolerance,
    )
    information, spread = torch.zeros(num_cameras, 6, 6, dtype=torch.float64), math.inf
    if config.reliability:
        information, spread = reliability(problem.equations(state, width))
    error = reprojection_error(state, observations)
    data_cost = robust_cost(error, observations.weight, width)
    return BundleResult(state, data_cost, report.cost_end, error, spread, information, report.num_steps)


class BundleProblem:
    """Terms, priors and unknowns of one adjustment: a ``damped.Problem`` over ``BundleState``.

    Attributes:
        observations: those with weight, sorted by camera.
        terms: what ties cameras to points.
        priors: by unknown (``focal``, ``radial``): what pulls on it.
        layout: columns of the unknowns.
        free: which unknowns of which cameras may move.
        runs: observations that are linearised together, as rows, and how many of them each camera has.
        extent: cameras that one run of the band holds.
        scratch: folder for what is too large to be held.
    """

    def __init__(
        self,
        observations: Observations,
        fixed: Bool[Tensor, " N"],
        config: BundleConfig,
        num_cameras: int,
        num_points: int,
        terms: Callable[[Observations], list[PointTerm]] | None = None,
    ) -> None:
        """Args:
        terms: made of the observations that count; None takes reprojection and, where it is measured, depth.
        """
        keep = (observations.weight > 0).nonzero()[:, 0]
        keep = keep[observations.camera[keep].argsort(stable=True)]
        self.observations = observations.select(keep)
        self.per_camera = torch.bincount(self.observations.camera, minlength=num_cameras).tolist()
        self.runs = list(_runs_of_cameras(self.per_camera, AT_ONCE))
        self.num_cameras, self.num_points, self.scratch = num_cameras, num_points, config.scratch
        self.terms = (terms or usual_terms)(self.observations)
        self.priors = _priors(config, num_cameras)
        self.layout = Layout.of(config)
        self.free = torch.ones(num_cameras, self.layout.size, dtype=torch.bool)
        self.free[fixed, :6] = False
        if not config.with_translation:
            self.free[:, :3] = False
        self.blocks = _blocks_of(self.observations, num_cameras, num_points, config.group)
        extent = max((block.high - block.low for block in self.blocks), default=1)
        self.extent = max(
            extent, 2 if self.layout.size == 7 else 1
        )  # neighbours are coupled by their focal lengths

    def evaluate(self, state: BundleState, width: float) -> tuple[float, BundleState]:
        """Robust cost with the priors, pixels squared."""
        total = sum(term.cost(state, width) for term in self.terms)
        for name, prior in self.priors.items():
            total += prior.cost(_numbers(state, name))
        return total, state

    def linearise(self, state: BundleState, width: float) -> Callable[[float], BundleState | None]:
        """A function from a damping to the state after its step; None where the system is not positive."""
        equations = self.equations(state, width)
        return lambda damping: _moved(equations, state, damping)

    def equations(self, state: BundleState, width: float) -> NormalEquations:
        """The normal equations at a state."""
        layout, size = self.layout, self.layout.size
        mirror = mirror_of(state.points).T
        shared = layout.num_border + 1
        shape = (size, 3, len(self.observations.camera))
        W = Scratch(shape, np.float64, self.scratch, resident_bytes=_W_RESIDENT)
        w = torch.zeros(shared, 3, self.num_points, dtype=torch.float64)
        V = torch.zeros(3, 3, self.num_points, dtype=torch.float64)
        U = []
        for rows, per_camera in self.runs:
            J, J_point = self._jacobians(state, rows, width, mirror)
            point = self.observations.point[rows]
            coupling = sum_outer(J, J_point)
            W.array[:, :, rows] = coupling[:size].numpy()
            W.touched(coupling.numel() * 8)
            w.index_add_(2, point, coupling[size:])
            V.index_add_(2, point, sum_outer(J_point, J_point))
            U += [torch.bmm(j, j.mT).sum(0) for j in J.split(per_camera, dim=2)]
        blocks = torch.stack(U)
        link = 0.0
        for name, column in (("focal", layout.focal), ("radial", layout.radial)):
            if column is not None and name in self.priors:
                gradient, curvature = self.priors[name].gradient(_numbers(state, name))
                rows_of = slice(0, len(gradient))
                blocks[rows_of, column, column] += curvature
                blocks[rows_of, column, -1] += gradient
                link = self.priors[name].link or link
        return NormalEquations(self, W, blocks, V, w, link)

    def _jacobians(
        self, state: BundleState, rows: slice, width: float, mirror: Float[Tensor, "4 P"]
    ) -> tuple[Float[Tensor, "r c o"], Float[Tensor, "r 3 o"]]:
        """Of consecutive observations: by what is of the cameras, with the residual, and by the points."""
        layout, observations, size = self.layout, self.observations.rows(rows), self.layout.size
        camera, point = observations.camera, observations.point
        seen = seen_by(state, observations)
        found = [term.of(observations).rows(state, seen, width) for term in self.terms]
        num_rows = sum(len(term.residual) for term in found)
        J = torch.zeros(num_rows, size + layout.num_border + 1, len(camera), dtype=torch.float64)
        J_world = torch.empty(num_rows, 4, len(camera), dtype=torch.float64)
        world_to_camera = state.w2c[:, :3].permute(1, 2, 0)[:, :, camera]
        p, start = seen.camera_points, 0
        for term in found:
            here = slice(start, start + len(term.residual))
            start = here.stop
            torch.mul(term.by_place, seen.w, out=J[here, :3])
            for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):  # rotations: p cross by_place
                torch.sub(p[i] * term.by_place[:, j], p[j] * term.by_place[:, i], out=J[here, 3 + k])
            for column, derivative in ((layout.focal, term.by_focal), (layout.radial, term.by_radial)):
                if column is not None and derivative is not None:
                    J[here, column] = derivative
            J[here, -1] = term.residual
            J_world[here] = (term.by_place[:, :, None] * world_to_camera).sum(1)
            if term.by_w is not None:
                J_world[here, 3] += term.by_w
        if not bool(self.free.all()):
            J[:, :size] *= self.free.T.to(J.dtype)[:, camera]
        return J, tangent_of(J_world, mirror[:, point], (2 / mirror.square().sum(0))[point])


def _runs_of_cameras(per_camera: list[int], most: int) -> Iterator[tuple[slice, list[int]]]:
    """Rows of whole cameras, about ``most`` of them at a time, with how many each camera has."""
    first, start = 0, 0
    for camera, stop in enumerate(itertools.accumulate(per_camera), start=1):
        if stop - start >= most or camera == len(per_camera):
            yield slice(start, stop), per_camera[first:camera]
            first, start = camera, stop


def _priors(config: BundleConfig, num_cameras: int) -> dict[str, Prior]:
    """What pulls on the unknowns that a config frees; the focal length is one number per camera, or shared by all."""
    priors = {}
    if config.focal != "fixed":
        focal, spread = config.focal_prior or (1.0, math.inf)
        link = config.prior_strength / config.focal_smoothness**2 if config.focal == "per_frame" else 0.0
        priors["focal"] = Prior(config.prior_strength / spread**2 / num_cameras, math.log(focal), link)
    if config.radial_prior > 0:
        priors["radial"] = Prior(config.prior_strength / config.radial_prior**2, 0.0)
    return priors


def _numbers(state: BundleState, name: str) -> Float[Tensor, " n"]:
    """The numbers of one unknown: a focal length per camera, or the radial coefficient."""
    if name == "focal":
        return state.log_focal
    return torch.tensor([state.radial], dtype=torch.float64)


@dataclass(frozen=True)
class NormalEquations:
    """The normal equations at a state. Arrays have the observations (or points) last: all of this is products of tiny
    matrices, which are fast only when written as sums of whole rows.

    Columns of the extended Jacobian: the camera's own unknowns, what all cameras share, the residual.

    Attributes:
        store: holds ``W``, on disk where it is large.
        U: camera blocks of the normal matrix, with the shared columns and the residual.
        V, w: point blocks, and what couples them to the shared columns and the residual.
        link: minus the coupling of the focal lengths of neighbouring cameras.
    """

    problem: BundleProblem
    store: Scratch
    U: Float[Tensor, "N c c"]
    V: Float[Tensor, "3 3 P"]
    w: Float[Tensor, "b1 3 P"]
    link: float

    def W(self, rows: slice | Int[Tensor, " o"]) -> Float[Tensor, "k 3 o"]:
        """Camera columns times point columns of some observations."""
        found = torch.from_numpy(self.store.array)[:, :, rows]
        self.store.touched(found.numel() * 8)
        return found

    def to_cameras(self, moved: Float[Tensor, "3 P"]) -> Float[Tensor, "k O"]:
        """What a move of the points does to each observation's camera columns."""
        point = self.problem.observations.point
        runs = [(self.W(rows) * moved[:, point[rows]]).sum(1) for rows, _ in self.problem.runs]
        return torch.cat(runs, 1)


@dataclass(frozen=True)
class Reduced:
    """The camera system after the points are eliminated: a band in runs of cameras, and a border.

    Attributes:
        diagonal, below: blocks of the band.
        right: coupling with the border, then the gradient, of every unknown of the band.
        corner: of the border and the gradient.
        factor: Cholesky factors of the point blocks.
        stores: hold ``diagonal`` and ``below``, on disk where they are large.
        scratch: folder for them and for the factor of the band.
    """

    diagonal: Float[Tensor, "B M M"]
    below: Float[Tensor, "B1 M M"]
    right: Float[Tensor, "BM b1"]
    corner: Float[Tensor, "b1 b1"]
    factor: Float[Tensor, "6 P"]
    stores: tuple[Scratch, Scratch]
    scratch: Path | None = None

    def band(self) -> BandFactor | None:
        """Factor of the band; None where it is not positive."""
        if self.stores[0].on_disk:
            give_back_memory()  # of the tables that the band was summed from: the factor takes as much again
        shape = (len(self.diagonal), *self.diagonal.shape[1:])
        factors = (Scratch(shape, np.float64, self.scratch), Scratch(shape, np.float64, self.scratch))
        return factor_band(self.block, self.below, factors)

    def block(self, number: int) -> Float[Tensor, "M M"]:
        """A diagonal block."""
        self.touched(1)
        return self.diagonal[number].clone()

    def touched(self, num_blocks: int) -> None:
        """Say that so many blocks of the diagonal and below it were worked on."""
        for store in self.stores:
            store.touched(num_blocks * 8 * self.diagonal.shape[1] ** 2)


def reduce(equations: NormalEquations, damping: float) -> Reduced:
    """Schur complement without the points: block-tridiagonal in runs of ``extent`` cameras, plus a border.

    W V^-1 W^T is formed as (W L^-T)(W L^-T)^T with V = L L^T: one dense product per block of points.
    """
    problem, U = equations.problem, equations.U
    size, n, extent = problem.layout.size, problem.num_cameras, problem.extent
    num_border = problem.layout.num_border
    num_runs = -(-n // extent)
    run = extent * size
    factor = cholesky_3x3(equations.V, damping)
    z = whiten(equations.w, factor)
    corner = U[:, size:, size:].sum(0)
    corner[:num_border, :num_border].diagonal().mul_(1 + damping)
    corner = corner - z.flatten(1) @ z.flatten(1).T
    stores = (
        Scratch((num_runs, run, run), np.float64, problem.scratch),
        Scratch((max(num_runs - 1, 0), run, run), np.float64, problem.scratch),
    )
    diagonal, below = (torch.from_numpy(store.array) for store in stores)
    right = torch.zeros(num_runs * run, num_border + 1, dtype=torch.float64)
    right[: n * size] = U[:, :size, size:].reshape(n * size, -1)
    at, row = torch.arange(n).div(extent, rounding_mode="floor"), torch.arange(n) % extent
    cells = diagonal.view(num_runs, extent, size, extent, size)
    reduced = Reduced(diagonal, below, right, corner, factor, stores, problem.scratch)
    for number, cameras in enumerate(_damped_cameras(equations, damping).split(extent)):
        inside = torch.arange(len(cameras))
        cells[number, inside, :, inside] = cameras
        reduced.touched(1)
    if equations.link:
        inside = at[1:] == at[:-1]
        a, before, after = at[:-1], row[:-1], row[1:]
        cells[a[inside], after[inside], 6, before[inside], 6] -= equations.link
        cells[a[inside], before[inside], 6, after[inside], 6] -= equations.link
        across = below.view(num_runs - 1, extent, size, extent, size)
        across[a[~inside], after[~inside], 6, before[~inside], 6] -= equations.link
    worked_on = 0
    for block in problem.blocks:
        cameras, members = block.high - block.low, len(block.members)
        table = torch.zeros(size * 3, cameras * members, dtype=torch.float64)
        seen = whiten(equations.W(block.rows), factor[:, problem.observations.point[block.rows]])
        seen = seen.reshape(size * 3, -1)
        table.scatter_(1, block.cell.expand(size * 3, -1), seen)
        table = table.view(size, 3, cameras, members).permute(2, 0, 1, 3).reshape(cameras * size, -1)
        width = cameras * size
        product = table @ table.T
        right[block.low * size : block.high * size] -= table @ z[:, :, block.members].flatten(1).T
        first_run = block.low // extent
        if first_run != worked_on:  # until then the blocks of points work on the same parts of the band
            reduced.touched(2)
        worked_on = first_run
        split = min((first_run + 1) * extent, block.high)
        k, start = (split - block.low) * size, (block.low - first_run * extent) * size
        diagonal[first_run, start : start + k, start : start + k] -= product[:k, :k]
        if split < block.high:
            rest = width - k
            diagonal[first_run + 1, :rest, :rest] -= product[k:, k:]
            below[first_run, :rest, start : start + k] -= product[k:, :k]
    reduced.touched(2)
    diagonal[-1].diagonal()[(n - (num_runs - 1) * extent) * size :] = 1.0
    return reduced


def _damped_cameras(equations: NormalEquations, damping: float) -> Float[Tensor, "N k k"]:
    """Blocks of the cameras alone, their diagonals raised; what is held gets the level of what is not."""
    size = equations.problem.layout.size
    U = equations.U[:, :size, :size].clone()
    level = U.diagonal(dim1=1, dim2=2).amax(0).clamp_min(1e-12)
    U.diagonal(dim1=1, dim2=2).mul_(1 + damping)
    held = torch.where(equations.problem.free, 0.0, 1.0)
    U.diagonal(dim1=1, dim2=2).add_(held * level + 1e-10 * level)
    return U


def _moved(equations: NormalEquations, state: BundleState, damping: float) -> BundleState | None:
    """The state after one step."""
    problem, layout = equations.problem, equations.problem.layout
    size, n, num_border = layout.size, problem.num_cameras, layout.num_border
    reduced = reduce(equations, damping)
    band = reduced.band()
    if band is None:
        return None
    found = solve_bordered(
        band,
        reduced.right[:, :num_border].T,
        reduced.corner[:num_border, :num_border],
        -reduced.right[:, num_border:],
        -reduced.corner[:num_border, num_border:],
        limit=LARGEST_STEP,
    )
    if found is None:
        return None
    delta_camera = found[0][: n * size, 0].reshape(n, size) * problem.free
    border = found[1][:, 0]
    if not bool(torch.isfinite(delta_camera).all()):
        return None
    camera, point = problem.observations.camera, problem.observations.point
    back = -equations.w[-1] - (equations.w[:-1] * border[:, None, None]).sum(0)
    by_camera = delta_camera.T.contiguous()
    for rows, _ in problem.runs:
        pull = (equations.W(rows) * by_camera[:, camera[rows]][:, None]).sum(0)
        back.index_add_(1, point[rows], -pull)
    points = moved_on_sphere(state.points, solve_3x3(reduced.factor, back))
    motion = torch.eye(4, dtype=points.dtype).repeat(n, 1, 1)
    motion[:, :3, :3] = so3_exp(delta_camera[:, 3:6])
    motion[:, :3, 3] = delta_camera[:, :3]
    step = torch.cat([delta_camera, border.expand(n, -1)], 1)
    log_focal, radial = state.log_focal, state.radial
    if layout.focal is not None:
        log_focal = log_focal + step[:, layout.focal].clamp(-LARGEST_STEP, LARGEST_STEP)
    if layout.radial is not None:
        radial = max(-LARGEST_RADIAL, min(LARGEST_RADIAL, radial + float(step[0, layout.radial])))
    return BundleState(motion @ state.w2c, log_focal, points, radial)


def reliability(equations: NormalEquations) -> tuple[Float[Tensor, "N 6 6"], float]:
    """Diagonal blocks of the Schur complement, and the spread of a shared log focal for unit pixel noise."""
    problem, layout = equations.problem, equations.problem.layout
    reduced = reduce(equations, 1e-6)
    size, extent = layout.size, problem.extent
    blocks = []
    for c in range(problem.num_cameras):
        at, row = divmod(c, extent)
        block = reduced.diagonal[at, row * size : row * size + 6, row * size : row * size + 6]
        blocks.append(block.clone())
        if row == extent - 1:
            reduced.touched(1)
    spread = math.inf
    band = reduced.band() if layout.focal is not None and layout.focal >= size else None
    if band is not None:
        column = reduced.right[:, :1]
        solved = band.solve(column.reshape(*reduced.diagonal.shape[:2], 1).clone()).reshape(-1)
        left = float(reduced.corner[0, 0] - column[:, 0] @ solved)
        spread = 1 / math.sqrt(left) if left > 0 else math.inf
    return torch.stack(blocks), spread
