"""Cameras solved one after another from those that are solved.

Axis names: N cameras, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.keyframes import KeyframeView, restricted
from geo4d.cameras.observations import Observations, shared_points
from geo4d.cameras.points import point_error, triangulate
from geo4d.cameras.problem import ShotProblem
from geo4d.cameras.rotations import bearing, fit_rotation
from geo4d.cameras.terms import BundleState, reprojection_error
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import rigid


@dataclass(frozen=True)
class GrowthStart:
    """A solved run of keyframes that the others are chained to.

    Attributes:
        run: [begin, end) of the solved cameras.
        w2c: of these.
        log_focal: of all cameras.
        points: numbers of the points that the run knows, and where they are.
        moving: of all points, True where the run says that they move.
    """

    run: tuple[int, int]
    w2c: Float[Tensor, "R 4 4"]
    log_focal: Float[Tensor, " N"]
    points: tuple[Int[Tensor, " M"], Float[Tensor, "M 4"]]
    moving: Bool[Tensor, " P"]


STATIC_LIMIT = 3.0
"""A point is used as long as its error is at most this many times that of a good one."""


_REACH = 20
"""Cameras before and after one that its points are made from when it is solved again; bounds the cost of a camera."""


def grow_again(
    state: BundleState,
    observations: Observations,
    solved: Bool[Tensor, " N"],
    level: float,
    order: Sequence[int],
    reach: int = 6,
) -> BundleState:
    """Solve cameras one by one from those that are solved, nearest first, each only from points that fit so far.

    Args:
        solved: cameras to start from.
        level: error of a good point, pixels.
        order: the cameras to solve.
        reach: every third time, so many neighbours are adjusted together.
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
        usable = error < STATIC_LIMIT * level
        if int(usable.sum()) >= 8:
            X = points[usable]
            far = X[:, 3:].clamp_min(1e-4 * float(X[:, :3].norm(dim=1).median()))
            rays = torch.cat([observations.uv[here][usable] / focal, torch.ones_like(far)], 1)
            guess = fit_camera_pose(
                X[:, :3] / far,
                rays,
                initial_w2c=guess,
                robust_width=STATIC_LIMIT * level / focal,
                num_iterations=7,
            )
        w2c[c] = guess
        solved[c] = True
        if turn % 3 == 2 or turn == len(order) - 1:
            low, high = max(0, c - reach), min(num_cameras, c + reach + 1)
            w2c[low:high] = _adjust_run(w2c, log_focal, around, solved, low, high, c, level)
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points), state.radial)


def _adjust_run(
    w2c: Float[Tensor, "N 4 4"],
    log_focal: Float[Tensor, " N"],
    observations: Observations,
    solved: Bool[Tensor, " N"],
    low: int,
    high: int,
    newest: int,
    level: float,
) -> Float[Tensor, "M 4 4"]:
    """Cameras [low, high) after an adjustment of the solved ones among them; the half far from the newest is held."""
    inside = (observations.camera >= low) & (observations.camera < high) & solved[observations.camera]
    ids, point = observations.point[inside].unique(return_inverse=True)
    often = torch.bincount(point, minlength=len(ids)) >= 3
    local = observations.select(inside, point)
    local = replace(local, camera=local.camera - low)
    state = BundleState(w2c[low:high], log_focal[low:high], torch.zeros(len(ids), 4, dtype=torch.float64))
    state = replace(state, points=triangulate(state.w2c, state.log_focal, local, len(ids)))
    error = point_error(reprojection_error(state, local), local, len(ids))
    usable = often & (error < 2 * STATIC_LIMIT * level)
    there = solved[low:high].nonzero()[:, 0]
    if int(usable.sum()) < 8 or len(there) < 3:
        return state.w2c
    held = ~solved[low:high]
    distant = there[(there + low - newest).abs().argsort(descending=True)]
    held[distant[: max(2, len(there) // 2)]] = True
    config = BundleConfig(
        num_iterations=6, robust_width=STATIC_LIMIT * level, focal="fixed", tolerance=1e-4, reliability=False
    )
    chosen = replace(local, weight=local.weight * usable[local.point])
    return bundle_adjust(state, chosen, fixed=held, config=config).state.w2c


def outward(core: tuple[int, int], low: int, high: int) -> list[int]:
    """The numbers of [low, high) outside the core, from its end up, then from its beginning down."""
    return [*range(core[1], high), *range(core[0] - 1, low - 1, -1)]


@dataclass
class _Chain:
    """Cameras and points of ``chain`` while it goes on."""

    w2c: Float[Tensor, "N 4 4"]
    log_focal: Float[Tensor, " N"]
    points: Float[Tensor, "P 4"]
    has_point: Bool[Tensor, " P"]
    moving: Bool[Tensor, " P"]
    solved: Bool[Tensor, " N"]


def chain(problem: ShotProblem, view: KeyframeView, start: GrowthStart, mover_limit: float) -> _Chain:
    """Windows chained in both directions from a solved run."""
    config, N = problem.config, view.num_cameras
    begin, end = start.run
    at = _Chain(
        torch.eye(4, dtype=torch.float64).repeat(N, 1, 1),
        start.log_focal,
        torch.zeros(view.num_points, 4, dtype=torch.float64),
        torch.zeros(view.num_points, dtype=torch.bool),
        start.moving.clone(),
        torch.zeros(N, dtype=torch.bool),
    )
    at.w2c[begin:end] = start.w2c
    at.points[start.points[0]] = start.points[1]
    at.has_point[start.points[0]] = True
    at.solved[begin:end] = True
    fresh = config.window - config.overlap
    forward = [range(b, min(b + fresh, N)) for b in range(end, N, fresh)]
    backward = [range(b, max(b - fresh, -1), -1) for b in range(begin - 1, -1, -fresh)]
    for block in (*forward, *backward):
        for c in block:
            _add_camera(problem, view, at, c, block.step)
        _adjust_locally(problem, view, at, min(block), max(block), block.step, mover_limit)
    return at


def _add_camera(problem: ShotProblem, view: KeyframeView, at: _Chain, c: int, direction: int) -> None:
    """Pose of a new keyframe from the points it sees, then the points it sees for the second time."""
    obs, before, least = view.observations, c - direction, problem.config.min_points
    _, uv_a, uv_b = shared_points(obs, before, c)
    focal = float(at.log_focal[c].exp())
    turn = fit_rotation(bearing(uv_a, focal), bearing(uv_b, focal))
    guess = rigid(turn @ at.w2c[before, :3, :3], turn @ at.w2c[before, :3, 3])
    mine = obs.camera == c
    rows = (mine & (at.has_point & ~at.moving)[obs.point]).nonzero()[:, 0]
    if len(rows) >= least:
        X = at.points[obs.point[rows]]
        near = X[:, 3] > 1e-3 * X[:, :3].norm(dim=1)
        rows, X = rows[near], X[near]
    if len(rows) >= least:
        rays = torch.cat([obs.uv[rows] / focal, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
        guess = fit_camera_pose(
            X[:, :3] / X[:, 3:], rays, initial_w2c=guess, robust_width=2 * problem.pixel_error / focal
        )
    at.w2c[c] = guess
    at.solved[c] = True
    usable = at.solved[obs.camera] & ~at.has_point[obs.point]
    count = torch.bincount(obs.point[usable], minlength=view.num_points)
    new = (count >= 2) & (torch.bincount(obs.point[mine], minlength=view.num_points) > 0)
    chosen = new.nonzero()[:, 0]
    if len(chosen) == 0:
        return
    renumber = torch.cumsum(new, 0) - 1
    rows = usable & new[obs.point]
    sub = obs.select(rows, renumber[obs.point[rows]])
    at.points[chosen] = triangulate(at.w2c, at.log_focal, sub, len(chosen))
    at.has_point[chosen] = True


def _adjust_locally(
    problem: ShotProblem,
    view: KeyframeView,
    at: _Chain,
    low: int,
    high: int,
    direction: int,
    mover_limit: float,
) -> None:
    overlap, least = problem.config.overlap, problem.config.min_points
    begin, end = (low - overlap, high + 1) if direction > 0 else (low, high + 1 + overlap)
    begin, end = max(begin, 0), min(end, view.num_cameras)
    sub, chosen = restricted(view, begin, end, least)
    known = (at.has_point & ~at.moving)[chosen]
    keep = known[sub.point]
    renumber = torch.cumsum(known, 0) - 1
    sub = sub.select(keep, renumber[sub.point[keep]])
    chosen = chosen[known]
    if len(chosen) < least:
        return
    fixed = torch.zeros(end - begin, dtype=torch.bool)
    held = overlap // 2
    fixed[:held] = direction > 0
    fixed[-held:] = direction < 0
    state = BundleState(at.w2c[begin:end], at.log_focal[begin:end], at.points[chosen])
    settings = BundleConfig(
        num_iterations=8, robust_width=2 * problem.pixel_error, focal="fixed", tolerance=1e-3
    )
    result = bundle_adjust(state, sub, fixed=fixed, config=settings)
    at.w2c[begin:end] = result.state.w2c
    at.points[chosen] = result.state.points
    # What is new here and far off moves; what was believed before is judged again at the end.
    error = point_error(result.error, sub, len(chosen))
    at.moving[chosen] = error > 3 * mover_limit * problem.pixel_error
