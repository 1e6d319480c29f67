"""Cameras of a whole video from its 2D tracks: keyframes, a searched start, windows chained, one global adjustment.

Every shot is solved on its own, in a world whose origin is its first camera and whose unit is the median depth of its
points. What the tracks cannot tell is said, not guessed: a shot without parallax gets rotations and zero translation, a
frame without points gets an interpolated pose with confidence 0.

Axis names: T frames of the video, N keyframes of a shot, P points, O observations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.cameras.frames import (
    Adjusted,
    Findings,
    ShotSolution,
    all_frames,
    finish,
    unknown_shot,
)
from geo4d.cameras.hypotheses import ShotHypothesis, first_hypothesis
from geo4d.cameras.keyframes import (
    KeyframeView,
    choose_keyframes,
    denser_frames,
    view_of,
)
from geo4d.cameras.kind import kind_of_refined, turning_kind
from geo4d.cameras.parts import try_other_parts
from geo4d.cameras.pieces import NOT_EXPLAINED, solve_in_pieces
from geo4d.cameras.problem import ShotProblem, refine_settings, shot_problem
from geo4d.cameras.refine import Refined, better, refine, repair
from geo4d.cameras.terms import reprojection_error
from geo4d.cameras.thresholds import AS_WELL, LEAST_EXPLAINED, STRAY, ZOOMS
from geo4d.cameras.types import CameraSolveConfig, MotionCameras
from geo4d.cameras.with_depth import sample_log_depth, solve_shot_with_depth
from geo4d.cameras.worth import carries_depth, judge_shot_depth, moves, with_focal, zoom_gain
from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.poses import inverse
from geo4d.optimise.threads import one_thread
from geo4d.tracks.types import Tracks


def fit_cameras(
    tracks: Tracks,
    *,
    intrinsics: Float[Tensor, "*t 3 3"] | None = None,
    focal_prior: tuple[float, float] | None = None,
    config: CameraSolveConfig | None = None,
    progress: Callable[[float], None] | None = None,
    scratch: Path | None = None,
) -> MotionCameras:
    """Cameras of all frames from tracks alone.

    The first camera of every shot is the identity; the median depth of its observations is 1.

    Args:
        tracks: see ``track_points``.
        intrinsics: known, [3, 3] or one per frame, pixels of the tracked pictures; None estimates one focal length per
            shot with the principal point in the middle.
        focal_prior: (median focal in pixels, spread of its logarithm), for instance from a depth predictor.
        config: see ``CameraSolveConfig``.
        progress: called with the share done.
        scratch: folder for work files of long videos; None takes the system's temporary one.
    Returns:
        cameras with confidence; never raises for a video without motion or features.
    Raises:
        ValueError: intrinsics of the wrong length.
    """
    config = config or CameraSolveConfig()
    known = _per_frame(intrinsics, tracks.num_frames)
    return _each_shot(
        tracks,
        known,
        progress,
        lambda start, stop: solve_shot(
            shot_problem(tracks, start, stop, known, focal_prior, config, scratch)
        ),
    )


def solve_with_depth(
    tracks: Tracks,
    depth: Iterable[Float[Tensor, "H W"]],
    intrinsics: Float[Tensor, "*t 3 3"],
    *,
    per_frame_scale: bool = False,
    config: CameraSolveConfig | None = None,
    progress: Callable[[float], None] | None = None,
    scratch: Path | None = None,
) -> MotionCameras:
    """Cameras of all frames from tracks and the depth maps of a predictor.

    Points are unknown; every observation measures its position and, where the depth map is smooth, its log depth. The
    first camera of every shot is the identity; translations have the unit of ``depth``.

    Args:
        tracks: see ``track_points``.
        depth: z-depth of every frame, in order, any size with the shape of the tracked pictures; not finite or not
            positive where unknown.
        intrinsics: pixels of the tracked pictures, [3, 3] or one per frame; the focal length is refined by one common
            factor within ``depth_focal_spread``.
        per_frame_scale: the depth of every frame has a scale of its own (single-image predictors).
        config: see ``CameraSolveConfig``.
        progress: called with the share done.
        scratch: see ``fit_cameras``.
    Raises:
        ValueError: intrinsics or depth of the wrong length.
    Source: GeometryCrafter, supplement, Eq. (9) and (10), with the depth term that its code leaves out.
    """
    config = config or CameraSolveConfig()
    known = _per_frame(intrinsics, tracks.num_frames)
    log_depth = sample_log_depth(tracks, depth)

    def solve(start: int, stop: int) -> ShotSolution:
        inside = (tracks.frame >= start) & (tracks.frame < stop)
        problem = shot_problem(tracks, start, stop, known, None, config, scratch)
        return solve_shot_with_depth(problem, log_depth[inside], per_frame_scale=per_frame_scale)

    return _each_shot(tracks, known, progress, solve)


def _per_frame(intrinsics: Float[Tensor, "*t 3 3"] | None, num_frames: int) -> Float[Tensor, "T 3 3"] | None:
    if intrinsics is None:
        return None
    intrinsics = intrinsics.double()
    if intrinsics.ndim == 2:
        intrinsics = intrinsics.expand(num_frames, 3, 3)
    if len(intrinsics) != num_frames:
        raise ValueError(f"expected intrinsics [3, 3] or [{num_frames}, 3, 3], got {tuple(intrinsics.shape)}")
    return intrinsics


def _each_shot(
    tracks: Tracks,
    known: Float[Tensor, "T 3 3"] | None,
    progress: Callable[[float], None] | None,
    solve: Callable[[int, int], ShotSolution],
) -> MotionCameras:
    """Every shot solved on its own; the shots begin where no track comes from the frame before."""
    starts = tracks.starts_shot.nonzero()[:, 0].tolist()
    stops = starts[1:] + [tracks.num_frames]
    solved: list[ShotSolution] = []
    with one_thread():
        for start, stop in zip(starts, stops, strict=True):
            solved += solve_in_pieces(tracks, start, stop, solve)
            if progress is not None:
                progress(stop / tracks.num_frames)
    return _assemble(solved, tracks, known)


def _assemble(solved: list[ShotSolution], tracks: Tracks, known: Tensor | None) -> MotionCameras:
    # A shot of a blink (black frame) has no evidence of its own: it takes the focal length of the longest other one.
    best = max(solved, key=lambda s: float(s.confidence.sum()))
    focal = torch.cat(
        [
            s.focal if s.motion.kind != "unknown" else torch.full_like(s.focal, float(best.focal.median()))
            for s in solved
        ]
    )
    scales = [s.depth_scale for s in solved if s.depth_scale is not None]
    matrices = centred_intrinsics(focal, tracks.size)
    if known is not None:
        # The solver may have changed the focal length by a common factor (depth maps); the rest stays as given.
        matrices = known.clone()
        matrices[:, :2, :2] *= (focal / known[:, 0, 0])[:, None, None]
    return MotionCameras(
        c2w=inverse(torch.cat([s.w2c for s in solved])),
        intrinsics=matrices,
        size=tracks.size,
        confidence=torch.cat([s.confidence for s in solved]).float(),
        shots=tuple(s.motion for s in solved),
        points=torch.cat([s.points for s in solved]).float(),
        point_shot=torch.cat([torch.full((len(s.points),), k) for k, s in enumerate(solved)]),
        depth_range=torch.cat([s.depth_range for s in solved]).float(),
        depth_scale=torch.cat(scales).float() if scales else None,
    )


@dataclass(frozen=True)
class _Found:
    """A solved shot.

    Attributes:
        refined: its cameras while they may move; None where there are none.
        may_zoom: whether it is worth while to solve it as a zoom.
        zoom_gain: what the focal lengths of a zoom explain beyond one of them, times noise.
        turns: whether a camera that turns and zooms took the place of one that moves.
    """

    solution: ShotSolution
    refined: Refined | None = None
    may_zoom: bool = False
    zoom_gain: float = 0.0
    turns: bool = False


def solve_shot(problem: ShotProblem) -> ShotSolution:
    """Cameras of one shot; with a focal length for every frame where that is asked for, or the tracks need it."""
    found = _solve(problem)
    if found.may_zoom:
        zoomed = _solve(replace(problem, config=replace(problem.config, zoom=True)))
        if zoomed.zoom_gain > ZOOMS and _explains_as_much(zoomed, found):
            return zoomed.solution
    return found.solution


def _solve(problem: ShotProblem) -> _Found:
    """Keyframes, a start, growth over all of them, refinement, then what it is all worth."""
    config = problem.config
    keyframes = choose_keyframes(problem)
    if problem.num_frames < 2:
        return _Found(unknown_shot(problem, "only one usable frame"))
    if len(keyframes) < 2:
        return _Found(unknown_shot(problem, "no tracks between its frames"))
    view = view_of(problem, keyframes, span=config.max_span)
    if view.num_points < config.min_points:
        return _Found(unknown_shot(problem, f"only {view.num_points} tracks"))
    dense = _denser_view(problem, view)
    best = _finished(problem, dense, first_hypothesis(problem, view, dense))
    if _doubtful(problem, best.refined):
        best = _other_parts(problem, dense, best)
    judged = judge_shot_depth(problem, dense, best.refined)
    if judged is None:
        return _Found(unknown_shot(problem, NOT_EXPLAINED))
    if best.kind == "parallax" and not carries_depth(problem, judged):
        best = replace(best, kind=turning_kind(problem, judged.turned), parallax=judged.parallax)
    refined, spread, assumed = with_focal(problem, dense, best.refined, best.kind, judged)
    adjusted = _as_adjusted(dense, refined)
    frames = all_frames(problem, adjusted, best.kind, unit_depth=True)
    findings = Findings(best.parallax, best.scores, spread, assumed, judged.depth_spread, judged.camera_error)
    solution = finish(problem, adjusted, frames, best.kind, findings)
    if float(solution.confidence.median()) < LEAST_EXPLAINED:
        solution = unknown_shot(problem, NOT_EXPLAINED)
    turns = not moves(problem, judged)
    return _Found(solution, best.refined, best.may_zoom, zoom_gain(problem, judged), turns)


def _explains_as_much(zoomed: _Found, one: _Found) -> bool:
    """Whether a zoom explains no less than one focal length, which it contains: else its cameras are not the best. One
    that takes the place of a path must do so in the whole shot."""
    if zoomed.refined is None or zoomed.solution.motion.kind == "unknown":
        return False
    if zoomed.turns and zoomed.solution.motion.error > AS_WELL * one.solution.motion.error:
        return False
    return one.refined is None or better(zoomed.refined, one.refined) is zoomed.refined


# Refinement


def _denser_view(problem: ShotProblem, view: KeyframeView) -> KeyframeView:
    """What the keyframes and the frames between them see."""
    few = view.num_cameras <= 3
    config = problem.config
    return view_of(
        problem,
        denser_frames(view.keyframes, config.frames_per_keyframe),
        span=config.max_span * config.frames_per_keyframe,
        least=2 if few else 3,
    )


def _finished(problem: ShotProblem, view: KeyframeView, best: ShotHypothesis) -> ShotHypothesis:
    """Weak ends solved again, where much is left unexplained; then many steps: focal lengths lie in a flat valley."""
    refined, settings = best.refined, refine_settings(problem, best.kind)
    if best.kind == "parallax" and refined.share_explained(problem.pixel_error) < problem.config.sure_share:
        refined = repair(refined, view.observations, settings)
    if problem.focal_mode == "per_frame" or (best.kind == "parallax" and problem.focal_mode == "shared"):
        refined = refine(refined.state, view.observations, settings, num_rounds=2, num_iterations=30)
    return replace(best, refined=refined)


def _doubtful(problem: ShotProblem, refined: Refined) -> bool:
    """Whether so much stays unexplained, or so badly explained, that it need not be the best solution."""
    loose = refined.level > problem.config.good_error * problem.pixel_error
    return loose or refined.share_explained(problem.pixel_error) < problem.config.explained_share


def _other_parts(problem: ShotProblem, view: KeyframeView, best: ShotHypothesis) -> ShotHypothesis:
    """Another rigid part of the scene in its place, if that explains more."""
    settings = refine_settings(problem, "parallax")
    other = try_other_parts(best.refined, view.observations, settings, pixel_error=problem.pixel_error)
    if other is best.refined:
        return best
    kind, parallax = best.kind, best.parallax
    if kind != "parallax":
        kind, parallax = kind_of_refined(problem, view, other)
        if kind != "parallax":
            return best
    return replace(best, kind=kind, parallax=parallax, refined=repair(other, view.observations, settings))


def _as_adjusted(view: KeyframeView, refined: Refined) -> Adjusted:
    """The adjustment behind a solution, and the observations that it explains."""
    assert refined.result is not None
    obs = view.observations
    error = reprojection_error(refined.state, obs)
    keep = (error < STRAY * refined.level) & refined.static[obs.point]
    result = replace(refined.result, state=refined.state, error=error)
    return Adjusted(replace(view, observations=replace(obs, weight=keep.double())), result)
