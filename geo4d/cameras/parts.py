"""Other rigid parts of a scene: runs of cameras begun from pairs all over the shot, each grown from what it explains.

Axis names: N cameras, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig
from geo4d.cameras.grow import grow, outward
from geo4d.cameras.observations import Observations, spread_points
from geo4d.cameras.refine import Refined, better, judge_state, refine
from geo4d.cameras.terms import BundleState
from geo4d.cameras.thresholds import LEAST_GAIN
from geo4d.cameras.two_views import relative_pose


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
            hypotheses.append(_Hypothesis(gain, (low, low + run), candidate.state, candidate.level, static))
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.gain)


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
    """Grow the best runs of cameras that explain something else, and return what explains most in the end."""
    hypotheses = find_hypotheses(refined, observations, pixel_error=pixel_error)
    num_cameras, best = len(refined.state.w2c), refined
    tried: list[_Hypothesis] = []
    for hypothesis in hypotheses:
        if len(tried) == num_tries:
            break
        if hypothesis.gain < LEAST_GAIN or any(_same_inliers(hypothesis, other) for other in tried):
            continue
        tried.append(hypothesis)
        w2c = torch.eye(4, dtype=torch.float64).repeat(num_cameras, 1, 1)
        w2c[hypothesis.run[0] : hypothesis.run[1]] = hypothesis.state.w2c
        solved = torch.zeros(num_cameras, dtype=torch.bool)
        solved[hypothesis.run[0] : hypothesis.run[1]] = True
        order = outward(hypothesis.run, 0, num_cameras)
        state = replace(refined.state, w2c=w2c)
        grown = grow(state, observations, solved, hypothesis.level, order)
        best = better(best, refine(grown, observations, settings))
    return best


def _same_inliers(a: _Hypothesis, b: _Hypothesis) -> bool:
    """Whether two runs of the same cameras are explained by nearly the same points."""
    shared = float((a.static & b.static).sum()) / max(float((a.static | b.static).sum()), 1.0)
    return a.run == b.run and shared > 0.6
