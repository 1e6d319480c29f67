"""Cameras of a whole video from its 2D tracks: keyframes, a searched start, windows chained, one global adjustment.

Every shot is solved on its own, in a world whose origin is its first camera and whose unit is the median depth of its
points. What the tracks cannot tell is said, not guessed: a shot without parallax gets rotations and zero translation, a
frame without points gets an interpolated pose with confidence 0.

Axis names: T frames of the video, N keyframes of a shot, P points, O observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleResult, bundle_adjust
from geo4d.cameras.frames import (
    Adjusted,
    Findings,
    ShotSolution,
    all_frames,
    dense_cameras,
    finish,
    unknown_shot,
)
from geo4d.cameras.grow import GrowthStart, chain
from geo4d.cameras.judge import DepthJudgement, judge_depth
from geo4d.cameras.keyframes import (
    KeyframeView,
    best_window,
    choose_keyframes,
    denser_frames,
    restricted,
    view_of,
)
from geo4d.cameras.observations import Observations, shared_points, spread_points
from geo4d.cameras.parts import try_other_parts
from geo4d.cameras.pieces import NOT_EXPLAINED, solve_in_pieces
from geo4d.cameras.points import triangulate
from geo4d.cameras.problem import ShotProblem, by_frame, refine_settings, shot_problem
from geo4d.cameras.refine import Refined, refine, repair
from geo4d.cameras.rotations import bearing, fit_rotation, mean_directions, relative_rotations, rotation_chain
from geo4d.cameras.start import MOVER_LIMIT, StartResult, find_start
from geo4d.cameras.terms import BundleState, reprojection_error, robust_cost
from geo4d.cameras.types import CameraSolveConfig, MotionCameras, MotionKind
from geo4d.cameras.with_depth import sample_log_depth, solve_shot_with_depth
from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.poses import inverse, rigid, rotation_angle, so3_log
from geo4d.optimise.threads import one_thread
from geo4d.tracks.types import Tracks

ASSUMED_FOCAL = 0.1
"""Spread of the logarithm of a focal length from tracks above which the prior has its say."""


LEAST_EXPLAINED = 0.2
"""Confidence (share of the tracks explained) of most frames of a shot below which its cameras are not believed at all."""


def fit_cameras(
    tracks: Tracks,
    *,
    intrinsics: Float[Tensor, "*t 3 3"] | None = None,
    focal_prior: tuple[float, float] | None = None,
    config: CameraSolveConfig | None = None,
    progress: Callable[[float], None] | None = None,
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
        lambda start, stop: solve_shot(shot_problem(tracks, start, stop, known, focal_prior, config)),
    )


def solve_with_depth(
    tracks: Tracks,
    depth: Iterable[Float[Tensor, "H W"]],
    intrinsics: Float[Tensor, "*t 3 3"],
    *,
    per_frame_scale: bool = False,
    config: CameraSolveConfig | None = None,
    progress: Callable[[float], None] | None = None,
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
    Raises:
        ValueError: intrinsics or depth of the wrong length.
    Source: GeometryCrafter, supplement, Eq. (9) and (10), with the depth term that its code leaves out.
    """
    config = config or CameraSolveConfig()
    known = _per_frame(intrinsics, tracks.num_frames)
    log_depth = sample_log_depth(tracks, depth)

    def solve(start: int, stop: int) -> ShotSolution:
        inside = (tracks.frame >= start) & (tracks.frame < stop)
        problem = shot_problem(tracks, start, stop, known, None, config)
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
    """What the camera does, with the parallax (pixels) that says so, and the solution."""

    kind: MotionKind
    parallax: float
    refined: Refined


def solve_shot(problem: ShotProblem) -> ShotSolution:
    """Cameras of one shot: keyframes, a start, growth over all of them, refinement, then what it is all worth."""
    config = problem.config
    keyframes = choose_keyframes(problem)
    if problem.num_frames < 2:
        return unknown_shot(problem, "only one usable frame")
    if len(keyframes) < 2:
        return unknown_shot(problem, "no tracks between its frames")
    view = view_of(problem, keyframes, span=config.max_span)
    if view.num_points < config.min_points:
        return unknown_shot(problem, f"only {view.num_points} tracks")
    run = best_window(problem, view, config.window)
    window, chosen = restricted(view, *run, config.min_points)
    start = _find_start(problem, window, run[1] - run[0], len(chosen))
    kind, parallax = _kind_of_start(problem, start, window, run[1] - run[0])
    if kind == "parallax":
        grown = _grow(problem, view, run, start, chosen)
    else:
        grown = _turn(problem, view, start)
    dense = _denser_view(problem, view)
    best = _Hypothesis(kind, parallax, _refine_densely(problem, grown, dense, kind))
    if _doubtful(problem, best.refined):
        best = _other_parts(problem, dense, best)
    judged = _judge_depth(problem, dense, best.refined)
    if best.kind == "parallax" and not _carries_depth(config, judged):
        best = replace(best, kind=_turning_kind(problem, judged.turned), parallax=judged.parallax)
    refined, spread, assumed = _with_focal(problem, dense, best, judged)
    adjusted = _as_adjusted(dense, refined)
    frames = all_frames(problem, adjusted, best.kind, unit_depth=True)
    findings = Findings(
        best.parallax, start.scores, spread, assumed, judged.depth_spread, judged.camera_error
    )
    solution = finish(problem, adjusted, frames, best.kind, findings)
    if float(solution.confidence.median()) < LEAST_EXPLAINED:
        return unknown_shot(problem, NOT_EXPLAINED)
    return solution


# Start and growth


def _find_start(problem: ShotProblem, window: Observations, num_cameras: int, num_points: int) -> StartResult:
    """The best solution of the window."""
    return find_start(
        window,
        num_cameras,
        num_points,
        width=problem.size[1],
        pixel_error=problem.pixel_error,
        focal=None if problem.known_focal is None else float(problem.known_focal.median()),
        prior=problem.prior,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        search_points=problem.config.search_points,
    )


def _grow(
    problem: ShotProblem, view: KeyframeView, run: tuple[int, int], start: StartResult, chosen: Tensor
) -> Adjusted:
    """All keyframes from the solved window, then everything adjusted at once."""
    N = view.num_cameras
    log_focal = start.bundle.state.log_focal[0].repeat(N)
    if problem.known_focal is not None:
        log_focal = problem.known_focal[view.keyframes].log()
    moving = torch.zeros(view.num_points, dtype=torch.bool)
    moving[chosen] = ~start.static
    state = start.bundle.state
    grown = chain(
        problem, view, GrowthStart(run, state.w2c, log_focal, (chosen, state.points), moving), MOVER_LIMIT
    )
    known = grown.has_point
    renumber = torch.cumsum(known, 0) - 1
    keep = known[view.observations.point]
    obs = view.observations.select(keep, renumber[view.observations.point[keep]])
    obs = replace(obs, weight=(~grown.moving[known])[obs.point].double())
    settings = BundleConfig(
        num_iterations=15,
        robust_width=2 * problem.pixel_error,
        focal=problem.focal_mode,
        focal_prior=problem.focal_prior,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        radial_prior=problem.radial_prior,
        tolerance=1e-4,
    )
    result = bundle_adjust(BundleState(grown.w2c, log_focal, grown.points[known]), obs, config=settings)
    return Adjusted(replace(view, observations=obs, track_of_point=view.track_of_point[known]), result)


def _turn(problem: ShotProblem, view: KeyframeView, start: StartResult) -> Adjusted:
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
    settings = BundleConfig(
        num_iterations=20,
        robust_width=2 * problem.pixel_error,
        focal=problem.focal_mode,
        focal_prior=problem.focal_prior,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        with_translation=False,
    )
    return Adjusted(view, bundle_adjust(BundleState(w2c, log_focal, points), obs, config=settings))


# Model selection: translation, rotation or none


def _kind_of_start(
    problem: ShotProblem, start: StartResult, window: Observations, num_cameras: int
) -> tuple[MotionKind, float]:
    """Does a translation explain the tracks so much better than a rotation that it must be real?"""
    rows = start.static[window.point]
    count = int(start.static.sum())
    return _select_kind(problem, start.rotation_only, start.bundle.cost, count, rows, num_cameras)


def _kind_of_refined(problem: ShotProblem, view: KeyframeView, refined: Refined) -> tuple[MotionKind, float]:
    """As ``_kind_of_start``, for the still points of a whole solution."""
    obs, state = view.observations, refined.state
    rows = refined.static[obs.point]
    chosen = replace(obs, weight=rows.double())
    points = mean_directions(state.w2c, state.log_focal, obs, view.num_points)
    w2c = state.w2c.clone()
    w2c[:, :3, 3] = 0
    width = 2 * problem.pixel_error
    settings = replace(
        refine_settings(problem, "rotation"),
        num_iterations=8,
        robust_width=width,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        reliability=False,
    )
    turned = bundle_adjust(BundleState(w2c, state.log_focal, points), chosen, config=settings)
    cost = robust_cost(reprojection_error(state, obs), chosen.weight, width)
    return _select_kind(problem, turned, cost, int(refined.static.sum()), rows, len(state.w2c))


def _select_kind(
    problem: ShotProblem,
    turned: BundleResult,
    cost: float,
    num_points: int,
    rows: Bool[Tensor, " O"],
    num_cameras: int,
) -> tuple[MotionKind, float]:
    """The kind of motion, and the median error of the solution without translation, pixels.

    Args:
        turned: the best solution without translation.
        cost: of the best one with it.
        num_points: still points.
        rows: their observations.
    """
    parallax = float(turned.error[rows].median()) if bool(rows.any()) else 0.0
    spare = max(2 * int(rows.sum()) - 3 * num_points - 6 * num_cameras, 1)
    noise = max(cost / spare, (0.1 * problem.pixel_error) ** 2)
    gain = (turned.cost - cost) / (num_points + 3 * num_cameras) / noise
    if gain > problem.config.parallax_test and parallax > 0.5 * problem.pixel_error:
        return "parallax", parallax
    return _turning_kind(problem, turned), parallax


def _turning_kind(problem: ShotProblem, turned: BundleResult) -> MotionKind:
    """Whether a camera without translation turns at all."""
    angle = rotation_angle(relative_rotations(turned.state.w2c)).max()
    moved = float(angle) * float(turned.state.log_focal[0].exp())
    return "rotation" if moved > 2 * problem.pixel_error else "static"


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
    """The solution of the keyframes carried to denser frames, adjusted to what fits; weak ends solved again."""
    w2c, focal = dense_cameras(problem, grown, kind)
    log_focal, obs = focal[dense.keyframes].log(), dense.observations
    w2c = w2c[dense.keyframes]
    if kind == "parallax":
        points = triangulate(w2c, log_focal, obs, dense.num_points)
    else:
        points = mean_directions(w2c, log_focal, obs, dense.num_points)
    settings = refine_settings(problem, kind)
    refined = refine(BundleState(w2c, log_focal, points, grown.result.state.radial), obs, settings)
    if kind == "parallax" and refined.share_explained(problem.pixel_error) < problem.config.sure_share:
        refined = repair(refined, obs, settings)
    return refined


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
        kind, parallax = _kind_of_refined(problem, view, other)
        if kind != "parallax":
            return best
    return _Hypothesis(kind, parallax, repair(other, view.observations, settings))


# What depth and focal length are worth


def _carries_depth(config: CameraSolveConfig, judged: DepthJudgement) -> bool:
    """Whether the translation is real and its depths are better than a guess."""
    return judged.gain > config.parallax_test and judged.depth_spread < config.depth_limit


def _judge_depth(problem: ShotProblem, view: KeyframeView, refined: Refined) -> DepthJudgement:
    """What the still points of a run of cameras say about depth and focal length: the run that moves most."""
    begin, end = best_window(problem, view, problem.config.judged_cameras)
    obs = view.observations
    inside = (obs.camera >= begin) & (obs.camera < end) & refined.static[obs.point]
    count = torch.bincount(obs.point[inside], minlength=view.num_points)
    member = count >= min(3, end - begin)
    keep = inside & member[obs.point]
    sub = obs.select(keep, (torch.cumsum(member, 0) - 1)[obs.point[keep]])
    chosen = member.nonzero()[:, 0]
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


def _with_focal(
    problem: ShotProblem, view: KeyframeView, best: _Hypothesis, judged: DepthJudgement
) -> tuple[Refined, float, bool]:
    """The solution for the most likely focal length: that of the tracks, drawn to the prior where they hardly know.

    Returns:
        solution; spread of the logarithm of the focal length by the tracks alone; whether the prior was needed.
    """
    refined = best.refined
    if problem.known_focal is not None:
        return (
            refined if best.kind == "parallax" else _without_translation(problem, view, refined.state),
            0.0,
            False,
        )
    found, spread = judged.moving_focal if best.kind == "parallax" else judged.turning_focal
    if best.kind == "static":
        spread = math.inf
    own = float(refined.state.log_focal.mean())
    # A lens without distortion that is read at once makes a focal length of the same tracks that differs by so much.
    spread = math.hypot(spread, found - own)
    assumed = spread > ASSUMED_FOCAL
    if best.kind == "parallax" and not assumed:
        return refined, spread, assumed
    log_prior, prior_spread = math.log(problem.prior[0]), problem.prior[1]
    trust = prior_spread**2 / (prior_spread**2 + spread**2) if math.isfinite(spread) else 0.0
    likely = log_prior + trust * (found - log_prior)
    state = replace(refined.state, log_focal=refined.state.log_focal - own + likely)
    if best.kind != "parallax":
        return _without_translation(problem, view, state), spread, assumed
    settings = replace(refine_settings(problem, best.kind), focal="fixed")
    return refine(state, view.observations, settings), spread, assumed


def _without_translation(problem: ShotProblem, view: KeyframeView, state: BundleState) -> Refined:
    """Rotations alone, for the focal lengths of a solution."""
    log_focal, obs, N = state.log_focal, view.observations, len(state.log_focal)
    rotations = rotation_chain(obs, N, float(log_focal.mean().exp()))
    w2c = rigid(rotations, torch.zeros(N, 3, dtype=torch.float64))
    points = mean_directions(w2c, log_focal, obs, view.num_points)
    settings = replace(refine_settings(problem, "rotation"), focal="fixed")
    return refine(BundleState(w2c, log_focal, points), obs, settings)


def _as_adjusted(view: KeyframeView, refined: Refined) -> Adjusted:
    """The adjustment behind a solution, and the observations that it explains."""
    assert refined.result is not None
    obs = view.observations
    error = reprojection_error(refined.state, obs)
    keep = (error < 20 * refined.level) & refined.static[obs.point]
    result = replace(refined.result, state=refined.state, error=error)
    return Adjusted(replace(view, observations=replace(obs, weight=keep.double())), result)
