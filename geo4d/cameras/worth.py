"""What depth and focal length of a solution are worth, and the focal length that is likeliest with the prior.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.judge import DepthJudgement, judge_depth
from geo4d.cameras.keyframes import KeyframeView, best_window
from geo4d.cameras.observations import spread_points
from geo4d.cameras.problem import ShotProblem, by_frame, refine_settings
from geo4d.cameras.refine import Refined, refine
from geo4d.cameras.rotations import bearing, fit_rotation, mean_directions, rotation_chain
from geo4d.cameras.terms import BundleState
from geo4d.cameras.thresholds import ASSUMED_FOCAL
from geo4d.cameras.types import MotionKind
from geo4d.geometry.poses import rigid, so3_log


def carries_depth(problem: ShotProblem, judged: DepthJudgement) -> bool:
    """Whether the translation is real and its depths are better than a guess."""
    return moves(problem, judged) and judged.depth_spread < problem.config.depth_limit


def zoom_gain(problem: ShotProblem, judged: DepthJudgement) -> float:
    """What focal lengths of their own explain, times noise: of a camera that moves or, where none does, that turns."""
    return judged.moving_zoom if moves(problem, judged) else judged.turning_zoom


def moves(problem: ShotProblem, judged: DepthJudgement) -> bool:
    """Whether a translation explains more than a camera that turns and, where it may, zooms."""
    zooms = problem.focal_mode == "per_frame"
    return judged.gain > (problem.config.zoom_parallax_test if zooms else problem.config.parallax_test)


def judge_shot_depth(problem: ShotProblem, view: KeyframeView, refined: Refined) -> DepthJudgement | None:
    """What the still points of a run of cameras say about depth and focal length: the run that moves most.

    None where no still point is seen by enough of these cameras: then nothing is known.
    """
    begin, end = best_window(problem, view, problem.config.judged_cameras)
    obs = view.observations
    inside = (obs.camera >= begin) & (obs.camera < end) & refined.static[obs.point]
    count = torch.bincount(obs.point[inside], minlength=view.num_points)
    member = count >= min(3, end - begin)
    keep = inside & member[obs.point]
    sub = obs.select(keep, (torch.cumsum(member, 0) - 1)[obs.point[keep]])
    chosen = member.nonzero()[:, 0]
    if len(chosen) == 0:
        return None
    few = spread_points(sub, len(chosen), problem.config.judged_points)
    keep = few[sub.point]
    sub = sub.select(keep, (torch.cumsum(few, 0) - 1)[sub.point[keep]])
    sub = replace(sub, camera=sub.camera - begin, weight=torch.ones(len(sub.point), dtype=torch.float64))
    state = refined.state
    state = BundleState(
        state.w2c[begin:end], state.log_focal[begin:end], state.points[chosen[few]], state.radial
    )
    return judge_depth(
        state,
        sub,
        _spin(problem, view.keyframes[begin:end].tolist(), float(state.log_focal.mean().exp())),
        problem.size[0],
        refine_settings(problem, "parallax"),
        pixel_error=problem.pixel_error,
    )


def _spin(problem: ShotProblem, frames: list[int], focal: float) -> Float[Tensor, "N 2 3"]:
    """Rotation per frame of the video around each of some frames, and its change, by what the tracks do there."""
    seen = by_frame(problem)

    def turn(first: int, second: int) -> Tensor | None:
        if not 0 <= second < problem.num_frames:
            return None
        (ids_a, uv_a), (ids_b, uv_b) = seen[first], seen[second]
        at = torch.searchsorted(ids_a, ids_b).clamp_max(max(len(ids_a) - 1, 0))
        same = ids_a[at] == ids_b if len(ids_a) else torch.zeros(len(ids_b), dtype=torch.bool)
        if int(same.sum()) < problem.config.min_points:
            return None
        return so3_log(fit_rotation(bearing(uv_a[at[same]], focal), bearing(uv_b[same], focal), 6))

    spin = torch.zeros(len(frames), 2, 3, dtype=torch.float64)
    for k, f in enumerate(frames):
        before, after = turn(f, f - 1), turn(f, f + 1)
        if before is not None and after is not None:
            spin[k, 0], spin[k, 1] = (after - before) / 2, after + before
            earlier, later = turn(f, f - 2), turn(f, f + 2)
            if earlier is not None and later is not None:
                spin[k, 0] = (8 * (after - before) - (later - earlier)) / 12
                spin[k, 1] = (16 * (after + before) - (later + earlier)) / 12
        elif after is not None:
            spin[k, 0] = after
        elif before is not None:
            spin[k, 0] = -before
    return spin


def with_focal(
    problem: ShotProblem,
    view: KeyframeView,
    refined: Refined,
    kind: MotionKind,
    judged: DepthJudgement,
) -> tuple[Refined, float, bool]:
    """The solution for the most likely focal length: that of the tracks, drawn to the prior where they hardly know.

    Returns:
        solution; spread of the logarithm of the focal length by the tracks alone; whether the prior was needed.
    """
    if problem.known_focal is not None:
        return (
            refined if kind == "parallax" else _without_translation(problem, view, refined.state),
            0.0,
            False,
        )
    found, spread = judged.moving_focal if kind == "parallax" else judged.turning_focal
    if kind == "static":
        spread = math.inf
    own = float(refined.state.log_focal.mean())
    # A lens without distortion that is read at once makes a focal length of the same tracks that differs by so much.
    spread = math.hypot(spread, found - own)
    assumed = spread > ASSUMED_FOCAL
    if kind == "parallax" and not assumed:
        return refined, spread, assumed
    log_prior, prior_spread = math.log(problem.prior[0]), problem.prior[1]
    trust = prior_spread**2 / (prior_spread**2 + spread**2) if math.isfinite(spread) else 0.0
    likely = log_prior + trust * (found - log_prior)
    state = replace(refined.state, log_focal=refined.state.log_focal - own + likely)
    if kind != "parallax":
        return _without_translation(problem, view, state), spread, assumed
    settings = replace(refine_settings(problem, kind), focal="fixed")
    return refine(state, view.observations, settings), spread, assumed


def _without_translation(problem: ShotProblem, view: KeyframeView, state: BundleState) -> Refined:
    """Rotations alone, for the focal lengths of a solution; those of a zoom change: a path has left traces there."""
    log_focal, obs, N = state.log_focal, view.observations, len(state.log_focal)
    rotations = rotation_chain(obs, N, float(log_focal.mean().exp()))
    w2c = rigid(rotations, torch.zeros(N, 3, dtype=torch.float64))
    points = mean_directions(w2c, log_focal, obs, view.num_points)
    settings = refine_settings(problem, "rotation")
    if problem.focal_mode == "shared":
        settings = replace(settings, focal="fixed")
    return refine(BundleState(w2c, log_focal, points), obs, settings)
