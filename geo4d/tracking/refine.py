"""The last word on the cameras of a shot: sharper adjustment, cameras grown again, other rigid parts of the scene tried.

A good start explains the tracks to far less than the error that was expected of them. Here that level is measured, so
that whatever does not fit it, be it moving or tracked badly, is left out; cameras that explain too little are solved
again from those that explain much; and where a large part of the pictures stays unexplained, other runs of cameras,
begun from pairs all over the shot, compete with the solution. The one that explains the largest area wins.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import rigid
from geo4d.tracking.bundle import (
    BundleConfig,
    BundleResult,
    BundleState,
    Observations,
    bundle_adjust,
    reprojection_error,
    tidy,
    triangulate,
)
from geo4d.tracking.start import (
    bearing,
    fit_rotation,
    point_error,
    relative_pose,
    renew_points,
    shared_points,
    spread_points,
)

STATIC_LIMIT = 3.0
"""A point is used as long as its error is at most this many times that of a good one."""

LEAST_GAIN = 0.02
"""A run of cameras gets its chance when it explains so much more of the pictures than the solution does there."""

_QUANTILE = 0.15
"""Which error is that of a good point, as a share of the pictures: most of them may be covered by movers."""

_REACH = 20
"""Cameras before and after one that its points are made from when it is solved again; bounds the cost of a camera."""

_LEAST_NOISE = 0.02
"""No track is believed to be better than this, pixels."""


@dataclass(frozen=True)
class Refined:
    """A solution with the points made anew from its cameras.

    Attributes:
        state: cameras and points.
        error: of every point, pixels per coordinate (see ``point_error``).
        level: error of a good point, pixels.
        area: how much of the pictures every point stands for, in pictures' cells (see ``observation_area``).
        result: the adjustment that the state came from, or None.
    """

    state: BundleState
    error: Float[Tensor, " P"]
    level: float
    area: Float[Tensor, " P"]
    result: BundleResult | None = None

    @property
    def static(self) -> Bool[Tensor, " P"]:
        return self.error < STATIC_LIMIT * self.level

    def explained(self, level: float) -> float:
        """Share of the area that points explain, those that fit better counting more.

        Args:
            level: error of a good point, pixels: the yardstick when several solutions are compared.
        """
        fit = (1 - (self.error / (STATIC_LIMIT * level)).square()).clamp_min(0)
        return float((self.area * fit).sum() / self.area.sum().clamp_min(1e-9))

    def share_explained(self, pixel_error: float) -> float:
        """Share of the area whose points may be still, if tracked badly: error at most ten times that of a good one.

        Args:
            pixel_error: expected of a track; the limit is between two and five times that.
        """
        limit = min(max(10 * self.level, 2 * pixel_error), 5 * pixel_error)
        return float(self.area[self.error < limit].sum() / self.area.sum().clamp_min(1e-9))


def observation_area(observations: Observations, cells: int = 8) -> Float[Tensor, " O"]:
    """How much of the pictures each observation stands for: every occupied cell of every camera counts as one.

    A mover with much texture has many points, but the still background has the larger part of the pictures.
    """
    if len(observations.uv) == 0:
        return torch.zeros(0, dtype=torch.float64)
    low, high = observations.uv.amin(0), observations.uv.amax(0)
    place = cells * (observations.uv - low) / (high - low).clamp_min(1e-9)
    column, row = place.long().clamp(0, cells - 1).unbind(1)
    cell = (observations.camera * cells + row) * cells + column
    return 1 / torch.bincount(cell).double()[cell]


def judge_state(state: BundleState, observations: Observations) -> Refined:
    """Make every point anew where that fits better, and measure what the cameras explain."""
    state, error = renew_points(tidy(state), observations)
    state = _before_infinity(state)
    area = torch.zeros(len(state.points), dtype=torch.float64)
    area.index_add_(0, observations.point, observation_area(observations))
    return Refined(state, error, _level(error, observations, area), area)


def _before_infinity(state: BundleState) -> BundleState:
    """The twin with most points at positive inverse depth: turning all translations and inverse depths over changes no
    picture, so an adjustment cannot tell them apart."""
    if float((state.points[:, 3] < 0).double().mean()) <= 0.5:
        return state
    turned = state.points.new_tensor([1.0, 1.0, 1.0, -1.0])
    w2c = state.w2c.clone()
    w2c[:, :3, 3] *= -1
    return replace(state, w2c=w2c, points=state.points * turned)


def _level(error: Float[Tensor, " P"], observations: Observations, area: Float[Tensor, " P"]) -> float:
    """Error below which ``_QUANTILE`` of the area lies, of points seen at least three times."""
    often = torch.bincount(observations.point, minlength=len(error)) >= 3
    usable = often & torch.isfinite(error)
    if not bool(usable.any()):
        return _LEAST_NOISE
    order = error[usable].argsort()
    total = area[usable][order].cumsum(0)
    at = int(torch.searchsorted(total, _QUANTILE * total[-1]))
    return max(_LEAST_NOISE, float(error[usable][order][min(at, len(order) - 1)]))


def refine(
    state: BundleState,
    observations: Observations,
    settings: BundleConfig,
    num_rounds: int = 4,
    num_iterations: int = 10,
    most: float = math.inf,
) -> Refined:
    """Adjust to the points that fit, measure how well they fit, and again.

    Args:
        settings: robust width and number of steps are replaced; ``prior_strength`` is in squares of the level found.
        num_rounds, num_iterations: adjustments, and steps of each.
        most: no point is used because others are worse than this, pixels; without it a solution that follows the wrong
            points takes in ever more of them.
    """
    current = judge_state(state, observations)
    for turn in range(num_rounds):
        current = replace(current, level=min(current.level, most))
        limit = STATIC_LIMIT * current.level * (3 if turn == 0 else 1)
        near = reprojection_error(current.state, observations) < 20 * current.level
        weight = observations.weight * (near & (current.error < limit)[observations.point])
        config = replace(
            settings,
            num_iterations=num_iterations,
            robust_width=3 * current.level,
            prior_strength=settings.prior_strength * current.level**2,
            tolerance=1e-5,
            reliability=turn == num_rounds - 1,
        )
        result = bundle_adjust(current.state, replace(observations, weight=weight), config=config)
        current = replace(judge_state(result.state, observations), result=result)
    return current


def frame_shares(refined: Refined, observations: Observations) -> tuple[Tensor, Tensor]:
    """Per camera: share of its area that static points cover, and their number."""
    num_cameras = len(refined.state.w2c)
    area = observation_area(observations)
    good = refined.static[observations.point].double()

    def per_camera(values: Tensor) -> Tensor:
        return torch.zeros(num_cameras, dtype=torch.float64).index_add_(0, observations.camera, values)

    return per_camera(good * area) / per_camera(area).clamp_min(1e-9), per_camera(good)


def best_core(refined: Refined, observations: Observations, length: int = 6) -> tuple[int, int]:
    """The run of cameras that explain most of what they see, with enough points."""
    share, count = frame_shares(refined, observations)
    if len(share) <= length:
        return 0, len(share)
    value = torch.minimum(share, share.median()) * count.clamp_max(60)
    begin = int(value.unfold(0, length, 1).sum(1).argmax())
    return begin, begin + length


def grow_again(
    state: BundleState,
    observations: Observations,
    solved: Bool[Tensor, " N"],
    level: float,
    order: Sequence[int],
    reach: int = 6,
) -> BundleState:
    """Solve cameras one by one from those that are solved, nearest first, each only from points that fit so far.

    Args:
        solved: cameras to start from.
        level: error of a good point, pixels.
        order: the cameras to solve.
        reach: every third time, so many neighbours are adjusted together.
    """
    solved, w2c, num_points = solved.clone(), state.w2c.clone(), len(state.points)
    log_focal, num_cameras = state.log_focal, len(state.w2c)
    by_time = observations.camera.argsort(stable=True)
    rows_of = by_time.split(torch.bincount(observations.camera, minlength=num_cameras).tolist())
    row_of = torch.full((num_points,), -1, dtype=torch.long)
    for turn, c in enumerate(order):
        low, high = max(0, c - _REACH), min(num_cameras, c + _REACH + 1)
        around = observations.select(torch.cat(rows_of[low:high]))
        known = solved.nonzero()[:, 0]
        near = int(known[(known - c).abs().argmin()])
        focal = float(log_focal[c].exp())
        _, uv_near, uv_here = shared_points(around, near, c)
        turned = fit_rotation(bearing(uv_near, float(log_focal[near].exp())), bearing(uv_here, focal), 6)
        guess = rigid(turned @ w2c[near, :3, :3], turned @ w2c[near, :3, 3])
        here = rows_of[c]
        row_of[observations.point[here]] = torch.arange(len(here))
        rows = solved[around.camera] & (row_of[around.point] >= 0)
        mine = around.select(rows, row_of[around.point[rows]])
        row_of[observations.point[here]] = -1
        points = triangulate(w2c, log_focal, mine, len(here))
        trial = BundleState(w2c, log_focal, points)
        error = point_error(reprojection_error(trial, mine), mine, len(here))
        usable = error < STATIC_LIMIT * level
        if int(usable.sum()) >= 8:
            X = points[usable]
            far = X[:, 3:].clamp_min(1e-4 * float(X[:, :3].norm(dim=1).median()))
            rays = torch.cat([observations.uv[here][usable] / focal, torch.ones_like(far)], 1)
            guess = fit_camera_pose(
                X[:, :3] / far,
                rays,
                initial_w2c=guess,
                robust_width=STATIC_LIMIT * level / focal,
                num_iterations=7,
            )
        w2c[c] = guess
        solved[c] = True
        if turn % 3 == 2 or turn == len(order) - 1:
            low, high = max(0, c - reach), min(num_cameras, c + reach + 1)
            w2c[low:high] = _adjust_run(w2c, log_focal, around, solved, low, high, c, level)
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points), state.radial)


def _adjust_run(
    w2c: Float[Tensor, "N 4 4"],
    log_focal: Float[Tensor, " N"],
    observations: Observations,
    solved: Bool[Tensor, " N"],
    low: int,
    high: int,
    newest: int,
    level: float,
) -> Float[Tensor, "M 4 4"]:
    """Cameras [low, high) after an adjustment of the solved ones among them; the half far from the newest is held."""
    inside = (observations.camera >= low) & (observations.camera < high) & solved[observations.camera]
    ids, point = observations.point[inside].unique(return_inverse=True)
    often = torch.bincount(point, minlength=len(ids)) >= 3
    local = observations.select(inside, point)
    local = replace(local, camera=local.camera - low)
    state = BundleState(w2c[low:high], log_focal[low:high], torch.zeros(len(ids), 4, dtype=torch.float64))
    state = replace(state, points=triangulate(state.w2c, state.log_focal, local, len(ids)))
    error = point_error(reprojection_error(state, local), local, len(ids))
    usable = often & (error < 2 * STATIC_LIMIT * level)
    there = solved[low:high].nonzero()[:, 0]
    if int(usable.sum()) < 8 or len(there) < 3:
        return state.w2c
    held = ~solved[low:high]
    distant = there[(there + low - newest).abs().argsort(descending=True)]
    held[distant[: max(2, len(there) // 2)]] = True
    config = BundleConfig(
        num_iterations=6, robust_width=STATIC_LIMIT * level, focal="fixed", tolerance=1e-4, reliability=False
    )
    chosen = replace(local, weight=local.weight * usable[local.point])
    return bundle_adjust(state, chosen, fixed=held, config=config).state.w2c


def outward(core: tuple[int, int], low: int, high: int) -> list[int]:
    """The numbers of [low, high) outside the core, from its end up, then from its beginning down."""
    return [*range(core[1], high), *range(core[0] - 1, low - 1, -1)]


def repair(refined: Refined, observations: Observations, settings: BundleConfig) -> Refined:
    """All cameras grown again from the best run of them; what explains more is returned."""
    num_cameras = len(refined.state.w2c)
    core = best_core(refined, observations)
    solved = torch.zeros(num_cameras, dtype=torch.bool)
    solved[core[0] : core[1]] = True
    order = outward(core, 0, num_cameras)
    grown = grow_again(refined.state, observations, solved, refined.level, order)
    return better(refined, refine(grown, observations, settings))


def better(first: Refined, *others: Refined) -> Refined:
    """The one that explains most by the yardstick of the sharpest; the first of equals."""
    level = min(r.level for r in (first, *others))
    return max((first, *others), key=lambda r: r.explained(level))


@dataclass(frozen=True)
class _Seed:
    """A run of cameras grown from one pair: what it explains there beyond the solution that it competes with."""

    gain: float
    run: tuple[int, int]
    state: BundleState
    level: float
    static: Bool[Tensor, " P"]


def find_seeds(
    refined: Refined,
    observations: Observations,
    *,
    pixel_error: float,
    run: int = 9,
    gaps: Sequence[int] = (3, 6),
    num_places: int = 5,
    search_points: int = 300,
) -> list[_Seed]:
    """Short runs of cameras from pairs all over the shot, two essential matrices each; those that explain most first.

    Args:
        run: cameras per run.
        gaps: between the cameras of a pair.
        num_places: runs that are tried at most.
        search_points: points at most in each run.
    """
    num_cameras = len(refined.state.w2c)
    run = min(run, num_cameras)
    seeds: list[_Seed] = []
    # Runs that share more than half of their cameras would find the same.
    num_places = min(num_places, 1 + math.ceil((num_cameras - run) / (run // 2)))
    for low in torch.linspace(0, num_cameras - run, num_places).round().long().unique().tolist():
        inside = (observations.camera >= low) & (observations.camera < low + run)
        ids, point = observations.point[inside].unique(return_inverse=True)
        local = observations.select(inside, point)
        local = replace(local, camera=local.camera - low)
        often = torch.bincount(local.point, minlength=len(ids)) >= 3
        if int(often.sum()) < 24:
            continue
        chosen = often.nonzero()[:, 0]
        keep = often[local.point]
        local = local.select(keep, (torch.cumsum(often, 0) - 1)[local.point[keep]])
        few = spread_points(local, len(chosen), search_points)
        keep = few[local.point]
        local = local.select(keep, (torch.cumsum(few, 0) - 1)[local.point[keep]])
        chosen = ids[chosen[few]]
        log_focal = refined.state.log_focal[low : low + run]
        now = judge_state(
            BundleState(refined.state.w2c[low : low + run], log_focal, refined.state.points[chosen]), local
        )
        found: list[Refined] = []
        for gap in gaps:
            begin = (run - gap) // 2
            if gap < run:
                found += _grow_pair(local, len(chosen), log_focal, (begin, begin + gap), pixel_error)
        if not found:
            continue
        level = min(r.level for r in (now, *found))
        for candidate in found:
            static = torch.zeros(len(refined.error), dtype=torch.bool)
            static[chosen] = candidate.static
            gain = candidate.explained(level) - now.explained(level)
            seeds.append(_Seed(gain, (low, low + run), candidate.state, candidate.level, static))
    return sorted(seeds, key=lambda seed: -seed.gain)


def _grow_pair(
    observations: Observations,
    num_points: int,
    log_focal: Float[Tensor, " N"],
    pair: tuple[int, int],
    pixel_error: float,
) -> list[Refined]:
    """All cameras from the essential matrix of a pair, and from that of the points that it does not explain."""
    num_cameras = len(log_focal)
    focal = float(log_focal[list(pair)].mean().exp())
    between = sorted(range(pair[0] + 1, pair[1]), key=lambda c: min(c - pair[0], pair[1] - c))
    order = [*between, *outward((pair[0], pair[1] + 1), 0, num_cameras)]
    among = torch.ones(num_points, dtype=torch.bool)
    grown: list[Refined] = []
    for _ in range(2):
        found = relative_pose(observations, num_points, focal, 0.5 * pixel_error, pair, among)
        if found is None:
            break
        solved = torch.zeros(num_cameras, dtype=torch.bool)
        solved[list(pair)] = True
        w2c = torch.eye(4, dtype=torch.float64).repeat(num_cameras, 1, 1)
        w2c[pair[1]] = found[0]
        state = BundleState(w2c, log_focal, torch.zeros(num_points, 4, dtype=torch.float64))
        # Two views fit all points that lie on their epipolar lines: only those of the matrix may be used.
        chosen = observations.select(among[observations.point])
        state = grow_again(state, chosen, solved, 0.5 * pixel_error, order)
        found_here = refine(
            state,
            observations,
            BundleConfig(focal="fixed"),
            num_rounds=2,
            num_iterations=4,
            most=0.5 * pixel_error,
        )
        grown.append(found_here)
        among = among & ~found[1]
    return grown


def try_other_parts(
    refined: Refined,
    observations: Observations,
    settings: BundleConfig,
    *,
    pixel_error: float,
    num_tries: int = 3,
) -> Refined:
    """Grow the best runs of cameras that explain something else, and return what explains most in the end."""
    seeds = find_seeds(refined, observations, pixel_error=pixel_error)
    num_cameras, best = len(refined.state.w2c), refined
    tried: list[_Seed] = []
    for seed in seeds:
        if len(tried) == num_tries:
            break
        if seed.gain < LEAST_GAIN or any(_same_part(seed, other) for other in tried):
            continue
        tried.append(seed)
        w2c = torch.eye(4, dtype=torch.float64).repeat(num_cameras, 1, 1)
        w2c[seed.run[0] : seed.run[1]] = seed.state.w2c
        solved = torch.zeros(num_cameras, dtype=torch.bool)
        solved[seed.run[0] : seed.run[1]] = True
        order = outward(seed.run, 0, num_cameras)
        state = replace(refined.state, w2c=w2c)
        grown = grow_again(state, observations, solved, seed.level, order)
        best = better(best, refine(grown, observations, settings))
    return best


def _same_part(a: _Seed, b: _Seed) -> bool:
    """Whether two runs of the same cameras are explained by nearly the same points."""
    shared = float((a.static & b.static).sum()) / max(float((a.static | b.static).sum()), 1.0)
    return a.run == b.run and shared > 0.6
