"""The first solution of a shot: keyframes from a searched start, grown over the shot and carried to denser frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.frames import Adjusted, dense_cameras
from geo4d.cameras.grow import grow, outward
from geo4d.cameras.keyframes import KeyframeView, best_window, restricted
from geo4d.cameras.kind import kind_of_start
from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.points import point_error, triangulate
from geo4d.cameras.problem import ShotProblem, refine_settings
from geo4d.cameras.refine import Refined, better, refine
from geo4d.cameras.rotations import bearing, fit_rotation, mean_directions
from geo4d.cameras.start import StartResult, find_start, focal_starts
from geo4d.cameras.terms import BundleState, reprojection_error
from geo4d.cameras.thresholds import LOOSE
from geo4d.cameras.types import MotionKind
from geo4d.cameras.zoom import may_zoom

MANY = 80
"""Keyframes up to which every start of a zoom is solved to the end: half a minute on one core. A longer shot tells more
of its zoom, and the two most different starts do."""


@dataclass(frozen=True)
class ShotHypothesis:
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


def first_hypothesis(problem: ShotProblem, view: KeyframeView, dense: KeyframeView) -> ShotHypothesis:
    """The best solution of a run of keyframes, grown over all of them and carried to denser frames.

    A path can hide a zoom, and many solutions are about as good while the run is short. So a zoom is searched with one
    focal length for the run, with one for every keyframe, and with several that are held at first; all are solved to the
    end.
    """
    config = problem.config
    run = best_window(problem, view, config.window)
    window, chosen = restricted(view, *run, config.min_points)

    def hypothesis(focal: float | None, zoom: bool = False) -> ShotHypothesis:
        start = _find_start(problem, window, run[1] - run[0], len(chosen), focal, zoom)
        kind, parallax = kind_of_start(problem, start, window, run[1] - run[0])
        settings = _keyframe_settings(problem, kind)
        grown = _grow(problem, view, run, start) if kind == "parallax" else _turn(problem, view, start)
        adjusted = Adjusted(grown.view, bundle_adjust(grown.state, grown.view.observations, config=settings))
        refined = _refine_densely(problem, adjusted, dense, kind)
        look = problem.zoom_is_open and may_zoom(problem, grown.state, adjusted, settings)
        return ShotHypothesis(kind, parallax, refined, start.scores, look)

    known = None if problem.known_focal is None else float(problem.known_focal.median())
    first = hypothesis(known)
    if problem.focal_mode != "per_frame":
        return first
    others = [hypothesis(None, zoom=True)]
    if view.num_cameras <= MANY:
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
