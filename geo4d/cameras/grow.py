"""Cameras solved one after another from those that are solved.

Axis names: N cameras, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.points import point_error, triangulate
from geo4d.cameras.rotations import bearing, fit_rotation
from geo4d.cameras.terms import BundleState, reprojection_error
from geo4d.cameras.thresholds import INLIER, LEAST_POINTS, LOOSE
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import rigid, transform

_ZOOM_STEPS = torch.tensor([-0.12, -0.08, -0.04, -0.02, 0.0, 0.02, 0.04, 0.08, 0.12], dtype=torch.float64)
"""Log of focal lengths over that of the neighbour that are tried for a camera whose lens zooms: a lens that doubles its
focal length in six keyframes changes it by 0.12 from one to the next."""

_REACH = 20
"""Cameras before and after one that its points are made from when it is solved again; bounds the cost of a camera."""


def grow(
    state: BundleState,
    observations: Observations,
    solved: Bool[Tensor, " N"],
    level: float,
    order: Sequence[int],
    free: int = 6,
    zoom: bool = False,
) -> BundleState:
    """Solve cameras one by one from those that are solved, nearest first, each only from points that fit so far.

    Args:
        solved: cameras to start from.
        level: error of a good point, pixels.
        order: the cameras to solve.
        free: every third time, so many of the solved cameras are adjusted together, the nearest ones.
        zoom: a camera tries focal lengths around that of its neighbour, and is adjusted at once.
    """
    solved, w2c, num_points = solved.clone(), state.w2c.clone(), len(state.points)
    log_focal, num_cameras = state.log_focal.clone(), len(state.w2c)
    by_time = observations.camera.argsort(stable=True)
    rows_of = by_time.split(torch.bincount(observations.camera, minlength=num_cameras).tolist())
    row_of = torch.full((num_points,), -1, dtype=torch.long)
    for turn, c in enumerate(order):
        low, high = max(0, c - _REACH), min(num_cameras, c + _REACH + 1)
        around = observations.select(torch.cat(rows_of[low:high]))
        known = solved.nonzero()[:, 0]
        near = int(known[(known - c).abs().argmin()])
        if zoom:
            log_focal[c] = log_focal[near]
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
        usable = error < INLIER * level
        usable &= _seen_most(mine, usable)
        if int(usable.sum()) >= LEAST_POINTS:
            X = points[usable]
            far = X[:, 3:].clamp_min(1e-4 * float(X[:, :3].norm(dim=1).median()))
            tried = focal * (torch.exp(_ZOOM_STEPS) if zoom else torch.ones(1, dtype=torch.float64))
            guess, focal = _pose_of(
                X[:, :3] / far, observations.uv[here][usable], guess, tried, INLIER * level
            )
            log_focal[c] = math.log(focal)
        w2c[c] = guess
        solved[c] = True
        if zoom or turn % 3 == 2 or turn == len(order) - 1:
            run = BundleState(w2c[low:high], log_focal[low:high], points[:0])
            adjusted = _adjust_run(run, around, solved, low, c, free, level, zoom)
            w2c[low:high], log_focal[low:high] = adjusted.w2c, adjusted.log_focal
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points), state.radial)


def _pose_of(
    points: Float[Tensor, "n 3"],
    uv: Float[Tensor, "n 2"],
    guess: Float[Tensor, "4 4"],
    focals: Float[Tensor, " c"],
    width: float,
) -> tuple[Float[Tensor, "4 4"], float]:
    """The pose that explains most points, and its focal length, one of those that are tried.

    Args:
        points: world; at a finite distance.
        uv: where they are seen, pixels from the principal point.
        guess: world to camera.
        focals: pixels.
        width: pixels: a residual like this counts half.
    """
    count = len(focals)
    rays = torch.cat([uv / focals[:, None, None], torch.ones(count, len(uv), 1, dtype=uv.dtype)], 2)
    world = points.expand(count, -1, -1)
    # One width for all, that of the middle: they are compared in pixels below.
    robust_width = width / float(focals.median())
    poses = fit_camera_pose(
        world, rays, initial_w2c=guess.expand(count, 4, 4), robust_width=robust_width, num_iterations=7
    )
    if count == 1:
        return poses[0], float(focals[0])
    seen = transform(poses, world)
    error = focals[:, None] * (seen[..., :2] / seen[..., 2:].clamp_min(1e-6) - rays[..., :2]).norm(dim=2)
    best = int((error.square() / (width**2 + error.square())).sum(1).argmin())
    return poses[best], float(focals[best])


def _seen_most(observations: Observations, usable: Bool[Tensor, " P"]) -> Bool[Tensor, " P"]:
    """The third of the usable points that was seen most often, or ``LEAST_POINTS`` if that is more.

    Points seen a few times fit whatever the cameras are, and err in depth. A camera placed by such points moves less than
    it did, the points made next come out nearer for it, and the scale of a long shot falls without end.
    """
    times_seen = torch.bincount(observations.point, minlength=len(usable))
    ordered = times_seen[usable].sort(descending=True).values
    most = max(LEAST_POINTS, len(ordered) // 3)
    return times_seen >= (ordered[most - 1] if most <= len(ordered) else 0)


def _adjust_run(
    run: BundleState,
    observations: Observations,
    solved: Bool[Tensor, " N"],
    low: int,
    newest: int,
    free: int,
    level: float,
    zoom: bool,
) -> BundleState:
    """Cameras from number ``low`` on after an adjustment of the ``free`` solved ones nearest the newest.

    The other solved ones are held, at least two of them: they saw the same points from farther away, and hold the scale.
    The focal length of a zoom may change in all that saw these points.
    """
    length = len(run.w2c)
    there = solved[low : low + length].nonzero()[:, 0]
    held = torch.ones(length, dtype=torch.bool)
    held[there[(there + low - newest).abs().argsort(stable=True)][: max(1, min(free, len(there) - 2))]] = (
        False
    )
    inside = solved[observations.camera]
    ids, point = observations.point[inside].unique(return_inverse=True)
    local = observations.select(inside, point)
    local = replace(local, camera=local.camera - low)
    often = torch.bincount(point, minlength=len(ids)) >= 3
    moved = torch.zeros(len(ids), dtype=torch.bool)
    moved[point[~held[local.camera]]] = True
    state = replace(run, points=triangulate(run.w2c, run.log_focal, local, len(ids)))
    error = point_error(reprojection_error(state, local), local, len(ids))
    usable = often & moved & (error < LOOSE * level)
    if int(usable.sum()) < LEAST_POINTS or len(there) < 3:
        return state
    config = BundleConfig(
        num_iterations=6,
        robust_width=INLIER * level,
        focal="per_frame" if zoom else "fixed",
        focal_smoothness=math.inf,  # held cameras that saw nothing of these points must not follow their neighbours
        tolerance=1e-4,
        damping=1e-6,
        reliability=False,
    )
    chosen = replace(local, weight=local.weight * usable[local.point])
    return bundle_adjust(state, chosen, fixed=held, config=config).state


def outward(core: tuple[int, int], low: int, high: int) -> list[int]:
    """The numbers of [low, high) outside the core, from its end up, then from its beginning down."""
    return [*range(core[1], high), *range(core[0] - 1, low - 1, -1)]
