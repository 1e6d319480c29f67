"""Starting values for cameras from tracks: rotations, two views, small motion, and which focal length to believe.

A short run of keyframes is solved from several starts (a few focal lengths, each from the essential matrix of its
widest pair and from "everything at one distance"). They race: after a few steps the worse half of each kind drops out,
and so do starts that have met. The one whose adjusted solution explains the tracks best wins.

Axis names: N cameras, P points, O observations, S shared points of two views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import interpolate_rigid, nearest_rotation, rigid
from geo4d.tracking.bundle import (
    BundleConfig,
    BundleResult,
    BundleState,
    Observations,
    bundle_adjust,
    reprojection_error,
    rescale,
    triangulate,
)


@dataclass(frozen=True)
class StartResult:
    """The best solution of a run of keyframes, and what it competed with.

    Attributes:
        bundle: the winner.
        rotation_only: the best solution without translation.
        scores: (start, focal at the start, focal found, robust cost per observation) of every start.
        static: points that the winner explains; the others move, or were tracked badly.
    """

    bundle: BundleResult
    rotation_only: BundleResult
    scores: tuple[tuple[str, float, float, float], ...]
    static: Bool[Tensor, " P"]


def bearing(uv: Float[Tensor, "S 2"], focal: float) -> Float[Tensor, "S 3"]:
    """Unit viewing directions of pixels relative to the principal point."""
    rays = torch.cat([uv / focal, torch.ones_like(uv[:, :1])], 1)
    return rays / rays.norm(dim=1, keepdim=True)


def fit_rotation(
    source: Float[Tensor, "S 3"], target: Float[Tensor, "S 3"], num_iterations: int = 15, floor: float = 1e-3
) -> Float[Tensor, "3 3"]:
    """Rotation that takes unit vectors onto unit vectors with the least sum of distances; identity for no vectors."""
    if len(source) == 0:
        return torch.eye(3, dtype=source.dtype)
    weight = torch.ones(len(source), dtype=source.dtype)
    rotation = torch.eye(3, dtype=source.dtype)
    for _ in range(num_iterations):
        rotation = nearest_rotation((target * weight[:, None]).T @ source)
        weight = 1 / ((target - source @ rotation.T).norm(dim=1) + floor)
    return rotation


def shared_points(observations: Observations, first: int, second: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points seen by both cameras: their numbers and both uv."""
    in_first = observations.camera == first
    in_second = observations.camera == second
    size = int(observations.point.max()) + 1 if len(observations.point) else 0
    row_first = torch.full((size,), -1, dtype=torch.long)
    row_second = torch.full((size,), -1, dtype=torch.long)
    row_first[observations.point[in_first]] = in_first.nonzero()[:, 0]
    row_second[observations.point[in_second]] = in_second.nonzero()[:, 0]
    both = ((row_first >= 0) & (row_second >= 0)).nonzero()[:, 0]
    return both, observations.uv[row_first[both]], observations.uv[row_second[both]]


def spread_points(observations: Observations, num_points: int, most: int) -> Bool[Tensor, " P"]:
    """At most so many points, evenly from all cells of an 8 x 8 grid of mean places, those seen longest first."""
    if num_points <= most:
        return torch.ones(num_points, dtype=torch.bool)
    count = torch.bincount(observations.point, minlength=num_points).double().clamp_min(1)
    place = torch.zeros(num_points, 2, dtype=torch.float64)
    place.index_add_(0, observations.point, observations.uv)
    place = place / count[:, None]
    low, high = place.amin(0), place.amax(0)
    column, row = (8 * (place - low) / (high - low).clamp_min(1e-9)).long().clamp_max(7).unbind(1)
    cell = 8 * row + column
    order = count.argsort(descending=True, stable=True)
    order = order[cell[order].argsort(stable=True)]  # by cell, longest tracks first
    rank = torch.arange(num_points) - torch.searchsorted(cell[order], cell[order])
    chosen = torch.zeros(num_points, dtype=torch.bool)
    chosen[order[rank.argsort(stable=True)[:most]]] = True
    return chosen


def rotation_chain(observations: Observations, num_cameras: int, focal: float) -> Float[Tensor, "N 3 3"]:
    """World-to-camera rotations chained over consecutive cameras as if there were no translation."""
    rotations = [torch.eye(3, dtype=torch.float64)]
    for i in range(num_cameras - 1):
        _, uv_a, uv_b = shared_points(observations, i, i + 1)
        rotations.append(fit_rotation(bearing(uv_a, focal), bearing(uv_b, focal)) @ rotations[-1])
    return torch.stack(rotations)


def points_at_one_distance(
    w2c: Float[Tensor, "N 4 4"], focal: float, observations: Observations, num_points: int
) -> Float[Tensor, "P 4"]:
    """Every point on the ray of its first observation, one unit away."""
    first = torch.full((num_points,), len(observations.point), dtype=torch.long)
    first.scatter_reduce_(0, observations.point, torch.arange(len(observations.point)), "amin")
    seen = first < len(observations.point)
    row = first.clamp_max(max(len(observations.point) - 1, 0))
    direction = bearing(observations.uv[row], focal)
    R, t = w2c[observations.camera[row], :3, :3], w2c[observations.camera[row], :3, 3]
    world = (R.mT @ (direction - t)[..., None])[..., 0]
    points = torch.cat([world, torch.ones_like(world[:, :1])], 1)
    points = torch.where(seen[:, None], points, points.new_tensor([0, 0, 1.0, 1.0]))
    return points / points.norm(dim=1, keepdim=True)


def small_motion_start(
    observations: Observations, num_cameras: int, num_points: int, focal: float
) -> BundleState:
    """Rotations from the chain, no translation, all points at one distance."""
    rotations = rotation_chain(observations, num_cameras, focal)
    w2c = rigid(rotations, torch.zeros(num_cameras, 3, dtype=torch.float64))
    points = points_at_one_distance(w2c, focal, observations, num_points)
    return BundleState(w2c, torch.full((num_cameras,), math.log(focal), dtype=torch.float64), points)


def widest_pair(observations: Observations, num_cameras: int, focal: float) -> tuple[int, int]:
    """The two cameras with the most shared points times motion that a rotation does not explain."""
    best, pair = -1.0, (0, num_cameras - 1)
    step = max(1, num_cameras // 6)
    for i in range(0, num_cameras - 1, step):
        for j in range(i + 1, num_cameras, step):
            _, uv_a, uv_b = shared_points(observations, i, j)
            if len(uv_a) < 16:
                continue
            a, b = bearing(uv_a, focal), bearing(uv_b, focal)
            left = (b - a @ fit_rotation(a, b, 6).T).norm(dim=1).median() * focal
            score = float(len(uv_a) ** 0.5 * left.clamp_max(0.1 * focal))
            if score > best:
                best, pair = score, (i, j)
    return pair


def relative_pose(
    observations: Observations,
    num_points: int,
    focal: float,
    pixel_error: float,
    pair: tuple[int, int],
    among: Bool[Tensor, " P"] | None = None,
) -> tuple[Float[Tensor, "4 4"], Bool[Tensor, " P"]] | None:
    """First to second camera of a pair by an essential matrix, and the points that it explains; None where that fails.

    Args:
        among: points that it may be found with; None: all.
    """
    both, uv_a, uv_b = shared_points(observations, *pair)
    if among is not None:
        both, uv_a, uv_b = both[among[both]], uv_a[among[both]], uv_b[among[both]]
    if len(both) < 16:
        return None
    a, b = uv_a.numpy(), uv_b.numpy()
    K = np.array([[focal, 0.0, 0.0], [0.0, focal, 0.0], [0.0, 0.0, 1.0]])
    # A tenth of the time of plain RANSAC here, and more often right beside movers.
    essential, inlier = cv2.findEssentialMat(
        a, b, K, method=cv2.USAC_ACCURATE, prob=0.9999, threshold=2 * pixel_error, maxIters=2000
    )
    if essential is None or essential.shape != (3, 3) or inlier.sum() < 8:
        return None
    _, R, t, _ = cv2.recoverPose(essential, a, b, focal=focal, pp=(0.0, 0.0), mask=inlier.copy())
    explained = torch.zeros(num_points, dtype=torch.bool)
    explained[both[torch.from_numpy(inlier[:, 0].astype(bool))]] = True
    return rigid(torch.from_numpy(R), torch.from_numpy(t[:, 0])), explained


def two_view_start(
    observations: Observations,
    num_cameras: int,
    num_points: int,
    focal: float,
    pixel_error: float,
    pair: tuple[int, int],
) -> BundleState | None:
    """Essential matrix of one pair, its points, then all other cameras from these points; None where that fails."""
    found = relative_pose(observations, num_points, focal, pixel_error, pair)
    if found is None:
        return None
    log_focal = torch.full((num_cameras,), math.log(focal), dtype=torch.float64)
    known = torch.zeros(num_cameras, dtype=torch.bool)
    known[list(pair)] = True
    first, second = torch.eye(4, dtype=torch.float64), found[0]
    share = ((torch.arange(num_cameras) - pair[0]) / (pair[1] - pair[0])).clamp(0, 1).double()
    w2c = interpolate_rigid(first.expand(num_cameras, 4, 4), second.expand(num_cameras, 4, 4), share)
    points = triangulate(w2c, log_focal, observations.select(known[observations.camera]), num_points)
    width = 2 * pixel_error / focal
    w2c = fit_to_points(observations, points, found[1], focal, width, w2c, ~known)
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, num_points))


def fit_to_points(
    observations: Observations,
    points: Float[Tensor, "P 4"],
    usable: Bool[Tensor, " P"],
    focal: float,
    width: float,
    initial_w2c: Float[Tensor, "N 4 4"],
    wanted: Bool[Tensor, " N"],
) -> Float[Tensor, "N 4 4"]:
    """Poses of the wanted cameras from points, in one batch; as they were where fewer than eight points are seen.

    Args:
        width: robust width in units of the focal length.
    """
    column = torch.cumsum(usable, 0) - 1
    rows = (usable[observations.point] & wanted[observations.camera]).nonzero()[:, 0]
    cells = (observations.camera[rows], column[observations.point[rows]])
    rays = torch.ones(len(initial_w2c), int(usable.sum()), 3, dtype=torch.float64)
    rays[..., :2][cells] = observations.uv[rows] / focal
    weight = torch.zeros(rays.shape[:2], dtype=torch.float64)
    weight[cells] = 1.0
    chosen = (weight.sum(1) >= 8).nonzero()[:, 0]
    if len(chosen) == 0:
        return initial_w2c
    world = points[usable, :3] / torch.where(points[usable, 3:].abs() < 1e-6, 1e-6, points[usable, 3:])
    w2c = initial_w2c.clone()
    w2c[chosen] = fit_camera_pose(
        world.expand(len(chosen), -1, -1),
        rays[chosen],
        weight[chosen],
        initial_w2c=initial_w2c[chosen],
        robust_width=width,
        num_iterations=10,
    )
    return w2c


def mirrored(state: BundleState) -> BundleState:
    """The depth-reversed twin: centres on the other side, distances turned over around their middle.

    Small motion explains the tracks almost as well with near and far exchanged; one of both is a local minimum.
    """
    R = state.w2c[:, :3, :3]
    centre = -(R.mT @ state.w2c[:, :3, 3:])[..., 0]
    inverse = state.points[:, 3] / state.points[:, :3].norm(dim=1).clamp_min(1e-9)
    middle = inverse.median()
    points = torch.cat(
        [
            state.points[:, :3] / state.points[:, :3].norm(dim=1, keepdim=True).clamp_min(1e-9),
            (2 * middle - inverse).clamp_min(0.1 * middle)[:, None],
        ],
        1,
    )
    w2c = rigid(R, (R @ centre[..., None])[..., 0])
    return BundleState(w2c, state.log_focal, points / points.norm(dim=1, keepdim=True))


def focal_starts(width: float, prior: tuple[float, float] | None) -> tuple[float, ...]:
    """Focal lengths to start from, pixels: fields of view of 90 to 40 degrees, or three around the prior's median."""
    if prior is not None and prior[1] < 0.2:
        return (prior[0],)
    if prior is not None and prior[1] < 0.35:
        return tuple(prior[0] * math.exp(k * prior[1]) for k in (-1.0, 0.0, 1.0))
    return tuple(0.5 * width / math.tan(math.radians(fov) / 2) for fov in (88.0, 68.0, 53.0, 41.0))


def normalise_scale(state: BundleState, observations: Observations) -> BundleState:
    """The same solution with the median depth of the observations at 1."""
    p = (state.w2c[observations.camera, :3] @ state.points[observations.point][..., None])[..., 0]
    w = state.points[observations.point, 3]
    usable = (p[:, 2] > 0) & (w > 1e-9)
    if int(usable.sum()) < 8:
        return state
    depth = (p[usable, 2] / w[usable]).median()
    return rescale(state, float(1 / depth))


def find_start(
    observations: Observations,
    num_cameras: int,
    num_points: int,
    *,
    width: float,
    pixel_error: float,
    focal: float | None,
    prior: tuple[float, float] | None,
    prior_strength: float,
    search_points: int,
) -> StartResult:
    """Solve a short run of keyframes from several starts, and return the best.

    Args:
        observations: cameras numbered 0 .. num_cameras - 1 in time.
        width: of the picture, pixels.
        pixel_error: expected error of a track, pixels.
        focal: known focal length, or None to search.
        prior: (focal, spread of its logarithm) for the adjustment and the choice.
        prior_strength: see ``BundleConfig``.
        search_points: points at most that the starts race with.
    """
    known = focal is not None
    focals = (focal,) if focal is not None else focal_starts(width, prior)
    settings = BundleConfig(
        robust_width=2 * pixel_error,
        focal="fixed" if known else "shared",
        focal_prior=None if known else prior,
        prior_strength=prior_strength,
        tolerance=1e-3,
        reliability=False,
    )
    few = spread_points(observations, num_points, search_points)
    rows = few[observations.point]
    some = observations.select(rows, (torch.cumsum(few, 0) - 1)[observations.point[rows]])
    racers, turned = race_starts(some, num_cameras, int(few.sum()), focals, pixel_error, settings)
    scores = tuple((r.name, r.begin, r.focal, r.cost / max(len(some.point), 1)) for r in racers)

    distant = points_at_one_distance(turned.state.w2c, turned.focal, observations, num_points)
    turning = replace(settings, with_translation=False, num_iterations=4)
    rotation_only = bundle_adjust(replace(turned.state, points=distant), observations, config=turning)
    best = racers[0].state
    points = triangulate(best.w2c, best.log_focal, observations, num_points)
    found = bundle_adjust(
        replace(best, points=points), observations, config=replace(settings, num_iterations=6)
    )
    error = point_error(found.error, observations, num_points)
    limit = MOVER_LIMIT * noise_level(error, observations, LEAST_NOISE * pixel_error)
    return StartResult(found, rotation_only, scores, error < limit)


def race_starts(
    observations: Observations,
    num_cameras: int,
    num_points: int,
    focals: tuple[float, ...],
    pixel_error: float,
    settings: BundleConfig,
) -> tuple[list[_Runner], _Runner]:
    """All starts in rounds of a few steps, of which fewer and fewer are left.

    Returns:
        the last ones, best first; the best without translation.
    """
    chains, two_views = [], []
    for begin in focals:
        state = small_motion_start(observations, num_cameras, num_points, begin)
        chains.append(_Runner("small motion", begin, state))
        pair = widest_pair(observations, num_cameras, begin)
        found = two_view_start(observations, num_cameras, num_points, begin, pixel_error, pair)
        if found is not None:
            two_views.append(_Runner("two views", begin, normalise_scale(found, observations)))

    def advance(runners: list[_Runner], num_iterations: int, num_left: int) -> list[_Runner]:
        return race(runners, observations, replace(settings, num_iterations=num_iterations), num_left)

    turning = replace(settings, with_translation=False)
    turned = race(chains, observations, replace(turning, num_iterations=3), 1)
    turned = race(turned, observations, replace(turning, num_iterations=9), 1)
    racers = sorted(advance(chains, 5, 2) + advance(two_views, 5, 3), key=_Runner.total)
    best = racers[0]
    racers.append(_Runner("mirrored", best.focal, mirrored(normalise_scale(best.state, observations))))
    racers = advance(advance(racers, 6, 3), 14, 3)
    return racers, turned[0]


@dataclass(frozen=True)
class _Runner:
    """One start on its way to a solution: where it began (pixels) and where it is."""

    name: str
    begin: float
    state: BundleState
    result: BundleResult | None = None

    @property
    def focal(self) -> float:
        return float(self.state.log_focal[0].exp())

    @property
    def cost(self) -> float:
        return self.solved().cost

    def total(self) -> float:
        """Cost with the prior of the focal length."""
        return self.solved().total_cost

    def solved(self) -> BundleResult:
        assert self.result is not None
        return self.result


def race(
    runners: list[_Runner], observations: Observations, settings: BundleConfig, num_left: int
) -> list[_Runner]:
    """Adjust all for some steps; the best are left, best first, without those that have met a better one."""
    moved = []
    for runner in runners:
        result = bundle_adjust(runner.state, observations, config=settings)
        moved.append(replace(runner, state=result.state, result=result))
    moved.sort(key=_Runner.total)
    left: list[_Runner] = []
    for runner in moved:
        if len(left) < num_left and not any(have_met(runner, other) for other in left):
            left.append(runner)
    return left


def have_met(a: _Runner, b: _Runner) -> bool:
    """Whether two starts have come to the same solution: focal length and cost within a percent."""
    return abs(math.log(a.focal / b.focal)) < 0.01 and abs(a.cost - b.cost) < 0.01 * max(a.cost, b.cost)


def point_error(
    error: Float[Tensor, " O"], observations: Observations, num_points: int
) -> Float[Tensor, " P"]:
    """Error of every point as a standard deviation per coordinate: its own three unknowns are accounted for.

    Single errors are cut at 100 pixels; infinite for points seen less than twice.
    """
    count = torch.bincount(observations.point, minlength=num_points).double()
    total = torch.zeros(num_points, dtype=torch.float64)
    total.index_add_(0, observations.point, error.clamp_max(100.0).square())
    return torch.where(count > 1, (total / (2 * count - 3).clamp_min(1)).sqrt(), torch.inf)


def noise_level(
    error: Float[Tensor, " P"], observations: Observations, floor: float, share: float = 0.25
) -> float:
    """Error of a good point: a low quantile over the points seen at least three times, as half of them may move."""
    count = torch.bincount(observations.point, minlength=len(error))
    often = error[(count >= 3) & torch.isfinite(error)]
    return max(floor, float(torch.quantile(often, share))) if len(often) else floor


def renew_points(state: BundleState, observations: Observations) -> tuple[BundleState, Float[Tensor, " P"]]:
    """Points triangulated anew where that explains them better; and the error of every point, pixels."""
    num_points = len(state.points)
    old = point_error(reprojection_error(state, observations), observations, num_points)
    again = triangulate(state.w2c, state.log_focal, observations, num_points)
    fresh = replace(state, points=again)
    new = point_error(reprojection_error(fresh, observations), observations, num_points)
    better = new < old
    points = torch.where(better[:, None], again, state.points)
    return replace(state, points=points), torch.where(better, new, old)


MOVER_LIMIT = 3.0
"""A point moves when its error is this many times that of a good point."""

LEAST_NOISE = 0.3
"""The error of a good point is not believed to be less than this share of the expected one."""
