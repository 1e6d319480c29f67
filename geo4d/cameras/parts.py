"""Other rigid parts of a scene: runs of cameras begun from pairs all over the shot, each grown from what it explains.

Axis names: N cameras, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig
from geo4d.cameras.grow import grow, outward
from geo4d.cameras.observations import Observations, spread_points
from geo4d.cameras.refine import Refined, better, judge_state, refine
from geo4d.cameras.terms import BundleState
from geo4d.cameras.thresholds import LEAST_GAIN
from geo4d.cameras.two_views import relative_pose

_AROUND = 32
"""Cameras on either side of a run over which it is grown before all others: three to four times its length, so that what
moves on its own has had time to part from what stands still."""


@dataclass(frozen=True)
class _Hypothesis:
    """A run of cameras grown from one pair: what it explains there beyond the solution that it competes with."""

    gain: float
    run: tuple[int, int]
    state: BundleState
    level: float
    static: Bool[Tensor, " P"]


def find_hypotheses(
    refined: Refined,
    observations: Observations,
    *,
    pixel_error: float,
    run: int = 9,
    gaps: Sequence[int] = (3, 6),
    num_places: int = 5,
    search_points: int = 300,
) -> list[_Hypothesis]:
    """Short runs of cameras from pairs all over the shot, two essential matrices each; those that explain most first.

    Args:
        run: cameras per run.
        gaps: between the cameras of a pair.
        num_places: runs that are tried at most.
        search_points: points at most in each run.
    """
    num_cameras = len(refined.state.w2c)
    run = min(run, num_cameras)
    hypotheses: list[_Hypothesis] = []
    # Runs that share more than half of their cameras would find the same.
    num_places = min(num_places, 1 + math.ceil((num_cameras - run) / (run // 2)))
    for low in torch.linspace(0, num_cameras - run, num_places).round().long().unique().tolist():
        local, chosen = _seen_in(observations, low, low + run)
        if len(chosen) < 24:
            continue
        few = spread_points(local, len(chosen), search_points)
        local, chosen = _of_points(local, few), chosen[few]
        now = _judge_in(refined, local, chosen, low, low + run)
        log_focal = now.state.log_focal
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
            hypotheses.append(_Hypothesis(gain, (low, low + run), candidate.state, candidate.level, static))
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.gain)


def _seen_in(observations: Observations, low: int, high: int) -> tuple[Observations, Int[Tensor, " M"]]:
    """What the cameras [low, high) see of the points that three of them see, both numbered from 0; and those points."""
    inside = (observations.camera >= low) & (observations.camera < high)
    ids, point = observations.point[inside].unique(return_inverse=True)
    local = observations.select(inside, point)
    often = torch.bincount(point, minlength=len(ids)) >= 3
    return _of_points(replace(local, camera=local.camera - low), often), ids[often]


def _of_points(observations: Observations, chosen: Bool[Tensor, " P"]) -> Observations:
    """Observations of some of the points, which are numbered anew."""
    keep = chosen[observations.point]
    return observations.select(keep, (torch.cumsum(chosen, 0) - 1)[observations.point[keep]])


def _judge_in(
    refined: Refined, local: Observations, chosen: Int[Tensor, " M"], low: int, high: int
) -> Refined:
    """What a solution explains of that which its cameras [low, high) see."""
    state = refined.state
    return judge_state(
        BundleState(state.w2c[low:high], state.log_focal[low:high], state.points[chosen], state.radial), local
    )


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
        state = grow(state, chosen, solved, 0.5 * pixel_error, order)
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
    """Grow the best runs of cameras that explain something else, and return what explains most in the end.

    Each is grown over the cameras around it first: most that explain a run by chance are found out there, at a cost that
    does not grow with the shot.
    """
    hypotheses = find_hypotheses(refined, observations, pixel_error=pixel_error)
    best = refined
    tried: list[_Hypothesis] = []
    for hypothesis in hypotheses:
        if len(tried) == num_tries:
            break
        if hypothesis.gain < LEAST_GAIN or any(_same_inliers(hypothesis, other) for other in tried):
            continue
        tried.append(hypothesis)
        if not _explains_around(hypothesis, refined, observations, settings):
            continue
        grown = _grow_run(hypothesis, refined.state, observations, hypothesis.run)
        best = better(best, refine(grown, observations, settings))
    return best


def _grow_run(
    hypothesis: _Hypothesis, state: BundleState, observations: Observations, run: tuple[int, int]
) -> BundleState:
    """All cameras of a state grown from those of a hypothesis, which stand at ``run`` among them."""
    num_cameras = len(state.w2c)
    w2c = torch.eye(4, dtype=torch.float64).repeat(num_cameras, 1, 1)
    w2c[run[0] : run[1]] = hypothesis.state.w2c
    solved = torch.zeros(num_cameras, dtype=torch.bool)
    solved[run[0] : run[1]] = True
    order = outward(run, 0, num_cameras)
    return grow(replace(state, w2c=w2c), observations, solved, hypothesis.level, order)


def _explains_around(
    hypothesis: _Hypothesis, refined: Refined, observations: Observations, settings: BundleConfig
) -> bool:
    """Whether a run of cameras explains more than the solution among the ``_AROUND`` cameras on either side, too."""
    low = max(0, hypothesis.run[0] - _AROUND)
    high = min(len(refined.state.w2c), hypothesis.run[1] + _AROUND)
    if high - low == len(refined.state.w2c):
        return True  # there is no more to find out than by growing it over the shot
    local, chosen = _seen_in(observations, low, high)
    now = _judge_in(refined, local, chosen, low, high)
    run = hypothesis.run[0] - low, hypothesis.run[1] - low
    found = refine(_grow_run(hypothesis, now.state, local, run), local, settings)
    level = min(found.level, now.level)
    return found.explained(level) - now.explained(level) >= LEAST_GAIN


def _same_inliers(a: _Hypothesis, b: _Hypothesis) -> bool:
    """Whether two runs of the same cameras are explained by nearly the same points."""
    shared = float((a.static & b.static).sum()) / max(float((a.static | b.static).sum()), 1.0)
    return a.run == b.run and shared > 0.6
