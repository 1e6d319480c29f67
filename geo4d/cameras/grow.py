"""Cameras solved one after another from those that are solved.

Axis names: N cameras, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.points import point_error, triangulate
from geo4d.cameras.rotations import bearing, fit_rotation
from geo4d.cameras.terms import BundleState, reprojection_error
from geo4d.cameras.thresholds import INLIER, LEAST_POINTS, LOOSE
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import rigid

_REACH = 20
"""Cameras before and after one that its points are made from when it is solved again; bounds the cost of a camera."""


def grow(
    state: BundleState,
    observations: Observations,
    solved: Bool[Tensor, " N"],
    level: float,
    order: Sequence[int],
    free: int = 6,
) -> BundleState:
    """Solve cameras one by one from those that are solved, nearest first, each only from points that fit so far.

    Args:
        solved: cameras to start from.
        level: error of a good point, pixels.
        order: the cameras to solve.
        free: every third time, so many of the solved cameras are adjusted together, the nearest ones.
    """
    solved, w2c, num_points = solved.clone(), state.w2c.clone(), len(state.points)
    log_focal, num_cameras = state.log_focal, len(state.w2c)
    by_time = observations.camera.argsort(stable=True)
    rows_of = by_time.split(torch.bincount(observations.camera, minlength=num_cameras).tolist())
    row_of = torch.full((num_points,), -1, dtype=torch.long)
    for turn, c in enumerate(order):
        low, high = max(0, c - _REACH), min(num_cameras, c + _REACH + 1)
        around = observations.select(torch.cat(rows_of[low:high]))
        known = solved.nonzero()[:, 0]
        near = int(known[(known - c).abs().argmin()])
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
            rays = torch.cat([observations.uv[here][usable] / focal, torch.ones_like(far)], 1)
            guess = fit_camera_pose(
                X[:, :3] / far,
                rays,
                initial_w2c=guess,
                robust_width=INLIER * level / focal,
                num_iterations=7,
            )
        w2c[c] = guess
        solved[c] = True
        if turn % 3 == 2 or turn == len(order) - 1:
            w2c[low:high] = _adjust_run(w2c, log_focal, around, solved, low, high, c, free, level)
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points), state.radial)


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
    w2c: Float[Tensor, "N 4 4"],
    log_focal: Float[Tensor, " N"],
    observations: Observations,
    solved: Bool[Tensor, " N"],
    low: int,
    high: int,
    newest: int,
    free: int,
    level: float,
) -> Float[Tensor, "M 4 4"]:
    """Cameras [low, high) after an adjustment of the ``free`` solved ones nearest the newest.

    The other solved ones are held, at least two of them: they saw the same points from farther away, and hold the scale.
    """
    there = solved[low:high].nonzero()[:, 0]
    held = torch.ones(high - low, dtype=torch.bool)
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
    state = BundleState(w2c[low:high], log_focal[low:high], torch.zeros(len(ids), 4, dtype=torch.float64))
    state = replace(state, points=triangulate(state.w2c, state.log_focal, local, len(ids)))
    error = point_error(reprojection_error(state, local), local, len(ids))
    usable = often & moved & (error < LOOSE * level)
    if int(usable.sum()) < LEAST_POINTS or len(there) < 3:
        return state.w2c
    config = BundleConfig(
        num_iterations=6,
        robust_width=INLIER * level,
        focal="fixed",
        tolerance=1e-4,
        damping=1e-6,
        reliability=False,
    )
    chosen = replace(local, weight=local.weight * usable[local.point])
    return bundle_adjust(state, chosen, fixed=held, config=config).state.w2c


def outward(core: tuple[int, int], low: int, high: int) -> list[int]:
    """The numbers of [low, high) outside the core, from its end up, then from its beginning down."""
    return [*range(core[1], high), *range(core[0] - 1, low - 1, -1)]
