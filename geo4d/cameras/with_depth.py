"""Cameras from tracks and depth maps: points start where the maps put them, and the maps measure them.

Axis names: T frames of the video, F frames of the shot, N keyframes, P points, O observations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleResult, bundle_adjust
from geo4d.cameras.frames import Adjusted, AllFrames, Findings, ShotSolution, all_frames, finish, unknown_shot
from geo4d.cameras.keyframes import KeyframeView, choose_keyframes, view_of
from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.points import triangulate
from geo4d.cameras.problem import ShotProblem
from geo4d.cameras.rotations import bearing, fit_rotation
from geo4d.cameras.terms import BundleState, tidy
from geo4d.geometry.fit import fit_camera_pose, fit_similarity_robust
from geo4d.geometry.poses import inverse, rigid, similarity_parts
from geo4d.tracks.types import Tracks


def solve_shot_with_depth(
    problem: ShotProblem, log_depth: Float[Tensor, " O"], *, per_frame_scale: bool
) -> ShotSolution:
    """Cameras of one shot whose intrinsics are known.

    Args:
        log_depth: logarithm of the measured z-depth at every observation of the problem; NaN where unknown.
        per_frame_scale: every frame's depth has a scale of its own.
    """
    unknown = replace(
        unknown_shot(problem, "too few tracks with depth"),
        depth_scale=torch.ones(problem.num_frames, dtype=torch.float64),
    )
    keyframes = choose_keyframes(problem)
    if problem.num_frames < 2 or len(keyframes) < 2:
        return unknown
    view = view_of(problem, keyframes, log_depth=log_depth, span=problem.config.max_span)
    assert view.observations.log_depth is not None
    if int(torch.isfinite(view.observations.log_depth).sum()) < 2 * problem.config.min_points:
        return unknown
    adjusted = _adjust(problem, view, per_frame_scale)
    frames = all_frames(problem, adjusted, "parallax")
    findings = Findings(_parallax_after(problem, view, len(keyframes) // 2))
    solution = finish(problem, adjusted, frames, "parallax", findings)
    if not per_frame_scale:
        return replace(solution, depth_scale=unknown.depth_scale)
    scale = _scale_of_frames(problem, frames, log_depth)
    # The first frame's own scale is as arbitrary as the others': their median becomes the unit.
    unit = scale.median()
    w2c = solution.w2c.clone()
    w2c[:, :3, 3] /= unit
    return replace(
        solution,
        w2c=w2c,
        points=solution.points / unit,
        depth_range=solution.depth_range / unit,
        depth_scale=scale / unit,
    )


def sample_log_depth(
    tracks: Tracks, depth: Iterable[Float[Tensor, "H W"]], *, edge_ratio: float = 1.15
) -> Float[Tensor, " O"]:
    """Log depth at every observation; NaN where unknown or at an edge.

    An edge is where 3x3 pixels differ by ``edge_ratio``, and by twice what they do elsewhere (noisy maps).
    """
    spread = torch.full((len(tracks.frame),), torch.nan, dtype=torch.float64)
    result = torch.full((len(tracks.frame),), torch.nan, dtype=torch.float64)
    order = tracks.frame.argsort(stable=True)
    counts = torch.bincount(tracks.frame, minlength=tracks.num_frames).tolist()
    seen = 0
    for frame, rows in zip(depth, order.split(counts), strict=False):
        seen += 1
        size = (frame.shape[0], frame.shape[1])
        log_map = torch.where(torch.isfinite(frame) & (frame > 0), frame, torch.nan).double().log()
        factor = torch.tensor([size[1] / tracks.size[1], size[0] / tracks.size[0]])
        xy = tracks.xy[rows] * factor - 0.5
        low = xy.floor().long()
        share = (xy - low).double()
        x = (low[:, 0, None] + torch.tensor([0, 1, 0, 1])).clamp(0, size[1] - 1)
        y = (low[:, 1, None] + torch.tensor([0, 0, 1, 1])).clamp(0, size[0] - 1)
        corners = log_map[y, x]
        mix = torch.stack([(1 - share[:, 0]), share[:, 0]], 1).repeat(1, 2)
        mix = mix * torch.stack([(1 - share[:, 1]), share[:, 1]], 1).repeat_interleave(2, 1)
        value = (corners * mix).sum(1)
        centre = xy.round().long()
        offsets = torch.tensor([-1, 0, 1])
        around = log_map[
            (centre[:, 1, None, None] + offsets[:, None]).clamp(0, size[0] - 1),
            (centre[:, 0, None, None] + offsets).clamp(0, size[1] - 1),
        ].flatten(1)
        spread[rows] = around.amax(1) - around.amin(1)
        result[rows] = value
    if seen != tracks.num_frames:
        raise ValueError(f"expected {tracks.num_frames} depth maps, got {seen}")
    usual = float(torch.nan_to_num(spread.nanmedian(), nan=0.0)) if len(spread) else 0.0
    return torch.where(spread < max(math.log(edge_ratio), 2 * usual), result, torch.nan)


def _scale_of_frames(
    problem: ShotProblem, frames: AllFrames, log_depth: Float[Tensor, " O"]
) -> Float[Tensor, " F"]:
    """Per frame, median ratio of the solved depth of its points to the measured one; neighbours' where unknown."""
    F, frame = problem.num_frames, problem.frame
    rows = ((frames.point >= 0) & torch.isfinite(log_depth)).nonzero()[:, 0]
    X = frames.points[frames.point[rows]]
    depth = (frames.w2c[frame[rows], 2] * X).sum(1) / X[:, 3].clamp_min(1e-9)
    ratio = depth.clamp_min(1e-12).log() - log_depth[rows]
    scale = torch.full((F,), torch.nan, dtype=torch.float64)
    for f in range(F):
        mine = ratio[(frame[rows] == f) & (depth > 0)]
        if len(mine) >= problem.config.min_points:
            scale[f] = mine.median()
    known = torch.isfinite(scale).nonzero()[:, 0]
    if len(known) == 0:
        return torch.ones_like(scale)
    nearest = (torch.arange(F)[:, None] - known).abs().argmin(1)
    return scale[known[nearest]].exp()


def _adjust(problem: ShotProblem, view: KeyframeView, per_frame_scale: bool) -> Adjusted:
    """All keyframes with measured depths, each with a scale of its own if asked.

    Three adjustments: after each the spread of the depths, and the scales, are measured anew; after the second what
    fits badly is left out.
    """
    obs, config = view.observations, problem.config
    assert obs.log_depth is not None
    assert problem.known_focal is not None
    known_focal = problem.known_focal[view.keyframes].log()
    has_depth = torch.isfinite(obs.log_depth)
    raw = torch.where(has_depth, obs.log_depth, 0.0)
    w2c, log_scale = _chain(problem, view, known_focal, has_depth, per_frame_scale)
    points = _points_from_depth(
        obs, view.num_points, w2c, known_focal, has_depth, raw + log_scale[obs.camera]
    )
    state = BundleState(w2c, known_focal, points)
    spread = config.depth_spread
    settings = BundleConfig(
        num_iterations=12,
        robust_width=2 * problem.pixel_error,
        focal="shared" if config.depth_focal_spread > 0 else "fixed",
        focal_prior=(float(known_focal.mean().exp()), config.depth_focal_spread or 1.0),
        prior_strength=config.prior_strength * problem.pixel_error**2,
        tolerance=1e-4,
        scratch=problem.scratch,
    )
    result: BundleResult | None = None
    for turn in range(3):
        weight = has_depth.double() * (problem.pixel_error / spread)
        measured = replace(obs, log_depth=raw + log_scale[obs.camera], depth_weight=weight)
        result = bundle_adjust(state, measured, config=settings)
        state = tidy(result.state)
        depth = (state.w2c[obs.camera, 2] * state.points[obs.point]).sum(1)
        depth = depth / state.points[obs.point, 3].clamp_min(1e-6)
        usable = has_depth & (depth > 0) & (result.error < 8 * problem.pixel_error)
        left = depth.clamp_min(1e-9).log() - raw - log_scale[obs.camera]
        if per_frame_scale:
            for c in range(1, view.num_cameras):
                mine = left[usable & (obs.camera == c)]
                if len(mine) >= config.min_points:
                    change = mine.median()
                    log_scale[c] += change
                    left[obs.camera == c] -= change
        if bool(usable.any()):
            spread = float((1.48 * left[usable].abs().median()).clamp(0.003, 0.3))
        if turn == 1:
            obs = replace(obs, weight=(result.error < 8 * problem.pixel_error).double())
            settings = replace(settings, robust_width=problem.pixel_error, num_iterations=20, tolerance=1e-6)
    assert result is not None
    return Adjusted(replace(view, observations=obs), result)


def _chain(
    problem: ShotProblem,
    view: KeyframeView,
    log_focal: Float[Tensor, " N"],
    has_depth: Bool[Tensor, " O"],
    per_frame_scale: bool,
) -> tuple[Float[Tensor, "N 4 4"], Float[Tensor, " N"]]:
    """Start: every keyframe aligned to the one before by the lifted points that both see. World to camera, log scale."""
    obs, N = view.observations, view.num_cameras
    assert obs.log_depth is not None
    lifted = _lift(obs, log_focal, torch.where(has_depth, obs.log_depth, 0.0))
    w2c = [torch.eye(4, dtype=torch.float64)]
    log_scale = torch.zeros(N, dtype=torch.float64)
    row_before = torch.full((view.num_points,), -1, dtype=torch.long)
    rows = ((obs.camera == 0) & has_depth).nonzero()[:, 0]
    row_before[obs.point[rows]] = rows
    for c in range(1, N):
        rows = ((obs.camera == c) & has_depth).nonzero()[:, 0]
        shared = rows[row_before[obs.point[rows]] >= 0]
        motion = torch.eye(4, dtype=torch.float64)
        log_scale[c] = log_scale[c - 1]
        if len(shared) >= problem.config.min_points:
            before = lifted[row_before[obs.point[shared]]] * log_scale[c - 1].exp()
            now = lifted[shared] * log_scale[c - 1].exp()
            near = 1 / before.norm(dim=1).clamp_min(1e-9)
            fit = fit_similarity_robust(before, now, near, with_scale=per_frame_scale)
            scale, R, t = similarity_parts(fit)
            log_scale[c] -= scale.log() if per_frame_scale else 0.0
            rays = torch.cat([obs.uv[shared], log_focal[c].exp().expand(len(shared), 1)], 1)
            motion = fit_camera_pose(
                before,
                rays / rays[:, 2:],
                initial_w2c=rigid(R, t / scale),
                robust_width=float(2 * problem.pixel_error / log_focal[c].exp()),
            )
        w2c.append(motion @ w2c[-1])
        row_before.fill_(-1)
        row_before[obs.point[rows]] = rows
    return torch.stack(w2c), log_scale


def _lift(
    obs: Observations, log_focal: Float[Tensor, " N"], log_depth: Float[Tensor, " O"]
) -> Float[Tensor, "O 3"]:
    """Camera-frame points of the observations."""
    rays = obs.uv / log_focal[obs.camera].exp()[:, None]
    return torch.cat([rays, torch.ones_like(rays[:, :1])], 1) * log_depth.exp()[:, None]


def _points_from_depth(
    obs: Observations,
    num_points: int,
    w2c: Float[Tensor, "N 4 4"],
    log_focal: Float[Tensor, " N"],
    has_depth: Bool[Tensor, " O"],
    log_depth: Float[Tensor, " O"],
) -> Float[Tensor, "P 4"]:
    """Points from their first observation with depth; the others by triangulation."""
    points = triangulate(w2c, log_focal, obs, num_points)
    first = torch.full((num_points,), len(obs.point), dtype=torch.long)
    rows = has_depth.nonzero()[:, 0]
    first.scatter_reduce_(0, obs.point[rows], rows, "amin")
    known = first < len(obs.point)
    rows = first[known]
    c2w = inverse(w2c)[obs.camera[rows]]
    lifted = _lift(obs, log_focal, log_depth)[rows]
    world = (c2w[:, :3, :3] @ lifted[..., None])[..., 0] + c2w[:, :3, 3]
    found = torch.cat([world, torch.ones_like(world[:, :1])], 1)
    points[known] = found / found.norm(dim=1, keepdim=True)
    return points


def _parallax_after(problem: ShotProblem, view: KeyframeView, step: int) -> float:
    """Median motion in pixels, from the first keyframe to ``step`` later, that a rotation does not explain."""
    assert problem.known_focal is not None
    focal = float(problem.known_focal[view.keyframes].log()[0].exp())
    for later in range(max(step, 1), 0, -1):
        _, uv_a, uv_b = shared_points(view.observations, 0, later)
        if len(uv_a) >= problem.config.min_points:
            a, b = bearing(uv_a, focal), bearing(uv_b, focal)
            return float((b - a @ fit_rotation(a, b).T).norm(dim=1).median()) * focal
    return 0.0
