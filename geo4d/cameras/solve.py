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

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.frames import (
    Adjusted,
    Findings,
    ShotSolution,
    all_frames,
    dense_cameras,
    finish,
    unknown_shot,
)
from geo4d.cameras.grow import grow, outward
from geo4d.cameras.keyframes import (
    KeyframeView,
    best_window,
    choose_keyframes,
    denser_frames,
    restricted,
    view_of,
)
from geo4d.cameras.kind import kind_of_refined, kind_of_start, turning_kind
from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.parts import try_other_parts
from geo4d.cameras.pieces import NOT_EXPLAINED, solve_in_pieces
from geo4d.cameras.points import point_error, triangulate
from geo4d.cameras.problem import ShotProblem, refine_settings, shot_problem
from geo4d.cameras.refine import Refined, better, refine, repair
from geo4d.cameras.rotations import bearing, fit_rotation, mean_directions
from geo4d.cameras.start import StartResult, find_start, focal_starts
from geo4d.cameras.terms import BundleState, reprojection_error
from geo4d.cameras.thresholds import LEAST_EXPLAINED, LOOSE, STRAY, ZOOMS
from geo4d.cameras.types import CameraSolveConfig, MotionCameras, MotionKind
from geo4d.cameras.with_depth import sample_log_depth, solve_shot_with_depth
from geo4d.cameras.worth import carries_depth, judge_shot_depth, with_focal, zoom_gain
from geo4d.cameras.zoom import may_zoom
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
class _Hypothesis:
    """What the camera does, with the parallax (pixels) that says so, and the solution.

    Attributes:
        scores: of everything it was started from.
        may_zoom: whether it is worth while to solve the shot as a zoom.
    """

    kind: MotionKind
    parallax: float
    refined: Refined
    scores: tuple[tuple[str, float, float, float], ...]
    may_zoom: bool


@dataclass(frozen=True)
class _Found:
    """A solved shot.

    Attributes:
        refined: its cameras while they may move; None where there are none.
        may_zoom: whether it is worth while to solve it as a zoom.
        zoom_gain: what the focal lengths of a zoom explain beyond one of them, times noise.
    """

    solution: ShotSolution
    refined: Refined | None = None
    may_zoom: bool = False
    zoom_gain: float = 0.0


def solve_shot(problem: ShotProblem) -> ShotSolution:
    """Cameras of one shot; with a focal length for every frame where that is asked for, or the tracks need it."""
    found = _solve(problem)
    if found.may_zoom:
        zoomed = _solve(replace(problem, config=replace(problem.config, zoom=True)))
        if zoomed.zoom_gain > ZOOMS and _explains_as_much(zoomed.refined, found.refined):
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
    best = _finished(problem, dense, _first_hypothesis(problem, view, dense))
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
    return _Found(solution, best.refined, best.may_zoom, zoom_gain(problem, judged))


def _explains_as_much(zoomed: Refined | None, one: Refined | None) -> bool:
    """Whether a zoom explains no less than one focal length, which it contains: else its cameras are not the best."""
    return zoomed is not None and (one is None or better(zoomed, one) is zoomed)


# Start and growth


def _first_hypothesis(problem: ShotProblem, view: KeyframeView, dense: KeyframeView) -> _Hypothesis:
    """The best solution of a run of keyframes, grown over all of them and carried to denser frames.

    A zoom is searched with one focal length for the run, and with one for every keyframe from each of several beginnings.
    A path can hide a zoom, and many solutions are about as good while the run is short; so all are solved to the end.
    """
    config = problem.config
    run = best_window(problem, view, config.window)
    window, chosen = restricted(view, *run, config.min_points)

    def hypothesis(focal: float | None, zoom: bool = False) -> _Hypothesis:
        start = _find_start(problem, window, run[1] - run[0], len(chosen), focal, zoom)
        kind, parallax = kind_of_start(problem, start, window, run[1] - run[0])
        settings = _keyframe_settings(problem, kind)
        grown = _grow(problem, view, run, start) if kind == "parallax" else _turn(problem, view, start)
        adjusted = Adjusted(grown.view, bundle_adjust(grown.state, grown.view.observations, config=settings))
        refined = _refine_densely(problem, adjusted, dense, kind)
        look = problem.zoom_is_open and may_zoom(problem, grown.state, adjusted, settings)
        return _Hypothesis(kind, parallax, refined, start.scores, look)

    known = None if problem.known_focal is None else float(problem.known_focal.median())
    first = hypothesis(known)
    if problem.focal_mode != "per_frame":
        return first
    others = [hypothesis(None, zoom=True)]
    others += [hypothesis(begin) for begin in focal_starts(problem.size[1], problem.prior)]
    best = better(first.refined, *(other.refined for other in others))
    return next(one for one in (first, *others) if one.refined is best)


def _find_start(
    problem: ShotProblem,
    window: Observations,
    num_cameras: int,
    num_points: int,
    focal: float | None,
    zoom: bool,
) -> StartResult:
    """The best solution of the window."""
    return find_start(
        window,
        num_cameras,
        num_points,
        width=problem.size[1],
        pixel_error=problem.pixel_error,
        focal=focal,
        prior=problem.prior,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        search_points=problem.config.search_points,
        zoom=zoom,
    )


def _keyframe_settings(problem: ShotProblem, kind: MotionKind) -> BundleConfig:
    """For the adjustment of all keyframes, to tracks that err as expected."""
    moves = kind == "parallax"
    return BundleConfig(
        num_iterations=15 if moves else 20,
        robust_width=2 * problem.pixel_error,
        with_translation=moves,
        focal=problem.focal_mode,
        focal_prior=problem.focal_prior,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        radial_prior=problem.radial_prior if moves else 0.0,
        tolerance=1e-4 if moves else BundleConfig.tolerance,
        scratch=problem.scratch,
    )


@dataclass(frozen=True)
class _Grown:
    """All keyframes, not yet adjusted together; observations that they do not explain have no weight."""

    view: KeyframeView
    state: BundleState


def _grow(problem: ShotProblem, view: KeyframeView, run: tuple[int, int], start: StartResult) -> _Grown:
    """All keyframes from the solved window."""
    N, obs = view.num_cameras, view.observations
    log_focal = start.bundle.state.log_focal[0].repeat(N)
    log_focal[slice(*run)] = start.bundle.state.log_focal
    if problem.known_focal is not None:
        log_focal = problem.known_focal[view.keyframes].log()
    w2c = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
    w2c[slice(*run)] = start.bundle.state.w2c
    solved = torch.zeros(N, dtype=torch.bool)
    solved[slice(*run)] = True
    state = BundleState(w2c, log_focal, torch.zeros(view.num_points, 4, dtype=torch.float64))
    zoom = problem.focal_mode == "per_frame"
    state = grow(state, obs, solved, start.level, outward(run, 0, N), zoom=zoom)
    error = point_error(reprojection_error(state, obs), obs, view.num_points)
    explained = error < LOOSE * max(start.level, problem.pixel_error)
    obs = replace(obs, weight=explained[obs.point].double())
    return _Grown(replace(view, observations=obs), state)


def _turn(problem: ShotProblem, view: KeyframeView, start: StartResult) -> _Grown:
    """All keyframes as pure rotations."""
    obs, N = view.observations, view.num_cameras
    log_focal = start.rotation_only.state.log_focal[:1].repeat(N)
    if problem.known_focal is not None:
        log_focal = problem.known_focal[view.keyframes].log()
    w2c = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
    for c in range(1, N):
        _, uv_a, uv_b = shared_points(obs, c - 1, c)
        a, b = bearing(uv_a, float(log_focal[c - 1].exp())), bearing(uv_b, float(log_focal[c].exp()))
        w2c[c, :3, :3] = fit_rotation(a, b) @ w2c[c - 1, :3, :3]
    points = mean_directions(w2c, log_focal, obs, view.num_points)
    return _Grown(view, BundleState(w2c, log_focal, points))


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


def _refine_densely(problem: ShotProblem, grown: Adjusted, dense: KeyframeView, kind: MotionKind) -> Refined:
    """The solution of the keyframes carried to denser frames, and adjusted to what fits."""
    w2c, focal = dense_cameras(problem, grown, kind)
    log_focal, obs = focal[dense.keyframes].log(), dense.observations
    w2c = w2c[dense.keyframes]
    if kind == "parallax":
        points = triangulate(w2c, log_focal, obs, dense.num_points)
    else:
        points = mean_directions(w2c, log_focal, obs, dense.num_points)
    state = BundleState(w2c, log_focal, points, grown.result.state.radial)
    return refine(state, obs, refine_settings(problem, kind))


def _finished(problem: ShotProblem, view: KeyframeView, best: _Hypothesis) -> _Hypothesis:
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


def _other_parts(problem: ShotProblem, view: KeyframeView, best: _Hypothesis) -> _Hypothesis:
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
