"""From solved keyframes to every frame of a shot: poses between, confidence, range of depths, and words for the user.

Axis names: F frames of the shot, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.cameras.bundle import BundleResult
from geo4d.cameras.keyframes import KeyframeView
from geo4d.cameras.observations import Observations, mean_per_point
from geo4d.cameras.problem import ShotProblem
from geo4d.cameras.rotations import fit_rotation
from geo4d.cameras.terms import BundleState, reprojection_error, rescale, tidy
from geo4d.cameras.types import MotionKind, ShotMotion
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import interpolate_rigid, inverse


@dataclass(frozen=True)
class Adjusted:
    """Keyframes solved, and the observations that the solution stands on (``weight`` 0 where it leaves one out)."""

    view: KeyframeView
    result: BundleResult


@dataclass(frozen=True)
class AllFrames:
    """Cameras of every frame in a world whose origin is the first of them.

    Attributes:
        w2c: world to camera.
        focal: pixels.
        points: homogeneous, in that world.
        radial: distortion, see ``BundleState``.
        explained: points that the solution stands on.
        point: number of the point behind every observation of the problem; -1 where there is none.
    """

    w2c: Float[Tensor, "F 4 4"]
    focal: Float[Tensor, " F"]
    points: Float[Tensor, "P 4"]
    radial: float
    explained: Bool[Tensor, " P"]
    point: Int[Tensor, " O"]


@dataclass(frozen=True)
class ShotSolution:
    """One shot, solved; the fields are those of ``MotionCameras``."""

    motion: ShotMotion
    w2c: Float[Tensor, "F 4 4"]
    focal: Float[Tensor, " F"]
    confidence: Float[Tensor, " F"]
    points: Float[Tensor, "P 3"]
    depth_range: Float[Tensor, "F 2"]
    depth_scale: Float[Tensor, " F"] | None = None


@dataclass(frozen=True)
class Findings:
    """What was found out about a shot beside its cameras; see ``ShotMotion`` for the words.

    Attributes:
        parallax: pixels.
        starts: everything tried.
        focal_spread: None takes that of the adjustment.
        depth_spread, camera_error: of a shot with parallax.
    """

    parallax: float
    starts: tuple[tuple[str, float, float, float], ...] = ()
    focal_spread: float | None = None
    focal_assumed: bool = False
    depth_spread: float = math.inf
    camera_error: float = 0.0


def finish(
    problem: ShotProblem, adjusted: Adjusted, frames: AllFrames, kind: MotionKind, findings: Findings
) -> ShotSolution:
    """Judge the cameras of all frames, and say what was found."""
    obs, result, pixel_error = adjusted.view.observations, adjusted.result, problem.pixel_error
    confidence, depth_range, error = _reliability(problem, frames, kind)
    spread = findings.focal_spread
    positions = torch.zeros(0, 3, dtype=torch.float64)
    if kind == "parallax":
        points = frames.points
        finite = points[:, 3] > 1e-3 * points[:, :3].norm(dim=1)
        good = mean_per_point(result.error.clamp_max(100), obs) < 3 * pixel_error
        good &= finite & frames.explained
        positions = points[good, :3] / points[good, 3:]
    focal = float(frames.focal.median())
    planar = planar_share(positions, pixel_error / focal)
    motion = ShotMotion(
        problem.start,
        problem.stop,
        kind,
        focal,
        result.log_focal_spread * pixel_error if spread is None else spread,
        findings.parallax,
        planar,
        len(positions),
        error,
        _statement(problem, kind, findings, frames.focal, planar, len(positions)),
        findings.starts,
        findings.depth_spread if kind == "parallax" else math.inf,
        findings.camera_error if kind == "parallax" else 0.0,
        findings.focal_assumed,
        problem.focal_mode == "per_frame",
    )
    return ShotSolution(motion, frames.w2c, frames.focal, confidence, positions, depth_range)


def unknown_shot(problem: ShotProblem, why: str) -> ShotSolution:
    """A shot whose cameras nothing tells: identity, confidence 0."""
    F = problem.num_frames
    focal = problem.known_focal if problem.known_focal is not None else torch.full((F,), problem.prior[0])
    motion = ShotMotion(
        problem.start,
        problem.stop,
        "unknown",
        float(focal.median()),
        math.inf,
        0.0,
        0.0,
        0,
        math.inf,
        f"frames {problem.start}-{problem.stop - 1}: {why}; the pose is a placeholder",
    )
    return ShotSolution(
        motion,
        torch.eye(4, dtype=torch.float64).repeat(F, 1, 1),
        focal.double(),
        torch.zeros(F, dtype=torch.float64),
        torch.zeros(0, 3, dtype=torch.float64),
        torch.full((F, 2), torch.nan, dtype=torch.float64),
    )


def all_frames(
    problem: ShotProblem, adjusted: Adjusted, kind: MotionKind, *, unit_depth: bool = False
) -> AllFrames:
    """Cameras of every frame, the first of them the identity.

    Args:
        unit_depth: make the median depth of the observations 1.
    """
    state, view = tidy(adjusted.result.state), adjusted.view
    if kind == "parallax" and unit_depth:
        state = _with_unit_depth(state, view.observations, problem.config.min_points)
    explained, point = _explained(problem, adjusted)
    w2c, focal = between_keyframes(
        problem, view, state, kind, torch.where(explained[point.clamp_min(0)], point, -1)
    )
    first = inverse(w2c[:1])
    points = state.points.clone()
    points[:, :3] = points[:, :3] @ inverse(first)[0, :3, :3].T + points[:, 3:] * inverse(first)[0, :3, 3]
    return AllFrames(w2c @ first, focal, points, state.radial, explained, point)


def dense_cameras(problem: ShotProblem, adjusted: Adjusted, kind: MotionKind) -> tuple[Tensor, Tensor]:
    """World to camera and focal length of every frame in the world of the keyframes."""
    explained, point = _explained(problem, adjusted)
    usable = torch.where(explained[point.clamp_min(0)], point, -1)
    return between_keyframes(problem, adjusted.view, tidy(adjusted.result.state), kind, usable)


def _explained(problem: ShotProblem, adjusted: Adjusted) -> tuple[Bool[Tensor, " P"], Int[Tensor, " O"]]:
    """Points that the solution stands on, and the point behind every observation of the problem (-1: none)."""
    obs, track_of_point = adjusted.view.observations, adjusted.view.track_of_point
    explained = torch.zeros(len(adjusted.result.state.points), dtype=torch.bool)
    explained[obs.point[obs.weight > 0]] = True
    point_of_track = torch.full((int(problem.track.max()) + 1,), -1, dtype=torch.long)
    point_of_track[track_of_point] = torch.arange(len(track_of_point))
    return explained, point_of_track[problem.track]


def between_keyframes(
    problem: ShotProblem,
    view: KeyframeView,
    state: BundleState,
    kind: MotionKind,
    point: Int[Tensor, " O"],
) -> tuple[Float[Tensor, "F 4 4"], Float[Tensor, " F"]]:
    """Poses of the frames between the keyframes: interpolated, then fitted to the points they see.

    Args:
        point: behind every observation of the problem; -1 where none may be used.
    """
    F, keys, least = problem.num_frames, view.keyframes, problem.config.min_points
    frames = torch.arange(F)
    right = torch.searchsorted(keys, frames).clamp(1, len(keys) - 1)
    left = right - 1
    share = (frames - keys[left]).double() / (keys[right] - keys[left]).double()
    w2c = interpolate_rigid(state.w2c[left], state.w2c[right], share.clamp(0, 1))
    focal = torch.lerp(state.log_focal[left], state.log_focal[right], share.clamp(0, 1)).exp()
    if problem.known_focal is not None:
        factor = state.log_focal[0].exp() / problem.known_focal[keys[0]]
        focal = problem.known_focal * factor
    w2c[keys] = state.w2c
    between = torch.ones(F, dtype=torch.bool)
    between[keys] = False
    for f in between.nonzero()[:, 0].tolist():
        rows = ((problem.frame == f) & (point >= 0)).nonzero()[:, 0]
        if len(rows) < least:
            continue
        X = state.points[point[rows]]
        rays = torch.cat([problem.uv[rows] / focal[f], torch.ones(len(rows), 1, dtype=torch.float64)], 1)
        if kind == "parallax":
            near = X[:, 3] > 1e-3 * X[:, :3].norm(dim=1)
            if int(near.sum()) >= least:
                w2c[f] = fit_camera_pose(
                    X[near, :3] / X[near, 3:],
                    rays[near],
                    initial_w2c=w2c[f],
                    robust_width=float(problem.pixel_error / focal[f]),
                    num_iterations=6,
                )
        else:
            unit = rays / rays.norm(dim=1, keepdim=True)
            w2c[f, :3, :3] = fit_rotation(X[:, :3] / X[:, :3].norm(dim=1, keepdim=True), unit)
    return w2c, focal


def _with_unit_depth(state: BundleState, obs: Observations, min_points: int) -> BundleState:
    p = (state.w2c[obs.camera, :3] @ state.points[obs.point][..., None])[..., 0]
    w = state.points[obs.point, 3]
    usable = (obs.weight > 0) & (p[:, 2] > 0) & (w > 1e-6)
    if int(usable.sum()) < min_points:
        return state
    return rescale(state, float(1 / (p[usable, 2] / w[usable]).median()))


def _reliability(
    problem: ShotProblem, frames: AllFrames, kind: MotionKind
) -> tuple[Float[Tensor, " F"], Float[Tensor, "F 2"], float]:
    """Per frame: confidence and depth range; and the median error of all tracks with a point."""
    F, points, least = problem.num_frames, frames.points, problem.config.min_points
    rows = (frames.point >= 0).nonzero()[:, 0]
    everything = Observations(
        problem.frame[rows], frames.point[rows], problem.uv[rows], torch.ones(len(rows), dtype=torch.float64)
    )
    state = BundleState(frames.w2c, frames.focal.log(), points, frames.radial)
    error = reprojection_error(state, everything)
    good = error < 6 * problem.pixel_error
    seen = torch.bincount(problem.frame, minlength=F).double()
    explained = torch.bincount(everything.camera[good], minlength=F).double()
    enough = (explained / (3 * least)).clamp_max(1)
    confidence = explained / seen.clamp_min(1) * enough
    depth_range = torch.full((F, 2), torch.nan, dtype=torch.float64)
    if kind == "parallax":
        depth = (frames.w2c[everything.camera, 2] * points[everything.point]).sum(1)
        depth = depth / points[everything.point, 3].clamp_min(1e-3)
        for f in range(F):
            mine = depth[(everything.camera == f) & good & (depth > 0)]
            if len(mine) >= least:
                depth_range[f] = torch.quantile(mine, mine.new_tensor([0.01, 0.99]))
    return confidence, depth_range, float(error.median()) if len(error) else math.inf


def _statement(
    problem: ShotProblem,
    kind: MotionKind,
    findings: Findings,
    focal: Float[Tensor, " F"],
    planar: float,
    count: int,
) -> str:
    text = f"frames {problem.start}-{problem.stop - 1}: "
    if kind == "static":
        text += "the camera stands still; no parallax, so no depth from motion"
    elif kind == "rotation":
        text += "the camera only turns; rotations are known, parallax is missing"
    else:
        text += f"parallax of {findings.parallax:.1f} px, {count} points"
    if planar > 0.9:
        text += "; nearly all of them on one plane"
    if problem.focal_mode == "per_frame":
        text += f"; the lens zooms by a factor of {float(focal.max() / focal.min()):.2f}"
    if findings.focal_assumed:
        view = math.degrees(2 * math.atan(0.5 * problem.size[1] / float(focal.median())))
        text += f"; the tracks hardly tell the focal length: a field of view of {view:.0f} degrees is assumed"
    return text


def planar_share(points: Float[Tensor, "P 3"], tolerance: float) -> float:
    """Largest share of points that one plane explains to a few times the depth error of a pixel."""
    if len(points) < 20:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    triples = torch.randint(0, len(points), (200, 3), generator=generator)
    a, b, c = points[triples].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    length = normal.norm(dim=1, keepdim=True)
    usable = length[:, 0] > 1e-9
    normal = normal / length.clamp_min(1e-9)
    distance = (points @ normal.T - (a * normal).sum(1)).abs() / points.norm(dim=1, keepdim=True).clamp_min(
        1e-6
    )
    inside: Bool[Tensor, "P M"] = distance < max(10 * tolerance, 0.01)
    return float(torch.where(usable, inside.double().mean(0), 0.0).max())
