"""Starting values for cameras from tracks: rotations, two views, small motion, and which focal length to believe.

A short run of keyframes is solved from several starts (a few focal lengths, each from the essential matrix of its
widest pair and from "everything at one distance"), and the start whose adjusted solution explains the tracks best wins.

Axis names: N cameras, P points, O observations, S shared points of two views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
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
    robust_cost,
    triangulate,
)


@dataclass(frozen=True)
class StartResult:
    """The best solution of a run of keyframes, and what it competed with.

    Attributes:
        bundle: the winner.
        rotation_only: the best solution without translation.
        scores: (start, focal at the start, focal found, robust cost per observation) of every start.
        candidates: the solutions of all starts, best first.
        static: points that the winner explains; the others move, or were tracked badly.
    """

    bundle: BundleResult
    rotation_only: BundleResult
    scores: tuple[tuple[str, float, float, float], ...]
    candidates: tuple[BundleResult, ...]
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


def two_view_start(
    observations: Observations,
    num_cameras: int,
    num_points: int,
    focal: float,
    pixel_error: float,
    pair: tuple[int, int],
) -> BundleState | None:
    """Essential matrix of one pair, its points, then all other cameras from these points; None where that fails."""
    both, uv_a, uv_b = shared_points(observations, *pair)
    if len(both) < 16:
        return None
    a, b = uv_a.numpy(), uv_b.numpy()
    cv2.setRNGSeed(0)
    essential, inlier = cv2.findEssentialMat(
        a, b, focal, (0.0, 0.0), cv2.RANSAC, prob=0.9999, threshold=2 * pixel_error, maxIters=500
    )
    if essential is None or essential.shape != (3, 3) or inlier.sum() < 8:
        return None
    _, R, t, _ = cv2.recoverPose(essential, a, b, focal=focal, pp=(0.0, 0.0), mask=inlier.copy())
    log_focal = torch.full((num_cameras,), math.log(focal), dtype=torch.float64)
    first, second = pair
    w2c = torch.eye(4, dtype=torch.float64).repeat(num_cameras, 1, 1)
    w2c[second] = rigid(torch.from_numpy(R), torch.from_numpy(t[:, 0]))
    good = torch.from_numpy(inlier[:, 0].astype(bool))
    sub = Observations(
        torch.cat([torch.full((len(both),), c, dtype=torch.long) for c in pair]),
        torch.arange(len(both)).repeat(2),
        torch.cat([uv_a, uv_b]),
        torch.ones(2 * len(both), dtype=torch.float64),
    )
    points = triangulate(w2c, log_focal, sub, len(both))
    known = torch.full((num_points,), -1, dtype=torch.long)
    known[both[good]] = good.nonzero()[:, 0]
    order = sorted(
        (c for c in range(num_cameras) if c not in pair), key=lambda c: min(abs(c - p) for p in pair)
    )
    solved = {first, second}
    for c in order:
        rows = ((observations.camera == c) & (known[observations.point] >= 0)).nonzero()[:, 0]
        nearest = min(solved, key=lambda s: abs(s - c))
        start = w2c[nearest]
        if first < c < second:
            start = interpolate_rigid(
                w2c[first], w2c[second], torch.tensor((c - first) / (second - first), dtype=torch.float64)
            )
        if len(rows) >= 8:
            X = points[known[observations.point[rows]]]
            world = X[:, :3] / torch.where(X[:, 3:].abs() < 1e-6, 1e-6, X[:, 3:])
            rays = torch.cat(
                [observations.uv[rows] / focal, torch.ones(len(rows), 1, dtype=torch.float64)], 1
            )
            w2c[c] = fit_camera_pose(world, rays, initial_w2c=start, robust_width=2 * pixel_error / focal)
        else:
            w2c[c] = start
        solved.add(c)
    points = triangulate(w2c, log_focal, observations, num_points)
    return BundleState(w2c, log_focal, points)


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
) -> StartResult:
    """Solve a short run of keyframes from several starts and keep the best.

    Args:
        observations: cameras numbered 0 .. num_cameras - 1 in time.
        width: of the picture, pixels.
        pixel_error: expected error of a track, pixels.
        focal: known focal length, or None to search.
        prior: (focal, spread of its logarithm) for the adjustment and the choice.
        prior_strength: see ``BundleConfig``.
    """
    known = focal is not None
    starts = (focal,) if focal is not None else focal_starts(width, prior)
    settings = BundleConfig(
        num_iterations=25,
        robust_width=2 * pixel_error,
        focal="fixed" if known else "shared",
        focal_prior=None if known else prior,
        prior_strength=prior_strength,
        tolerance=1e-3,
    )
    still = BundleConfig(
        num_iterations=12,
        robust_width=2 * pixel_error,
        focal=settings.focal,
        focal_prior=settings.focal_prior,
        prior_strength=prior_strength,
        with_translation=False,
        tolerance=1e-3,
    )
    scores: list[tuple[str, float, float, float]] = []
    results: list[tuple[float, BundleResult]] = []
    rotation_only: BundleResult | None = None
    raw: list[BundleState] = []

    def judge(name: str, begin: float, result: BundleResult) -> None:
        total = result.cost
        found = float(result.state.log_focal[0].exp())
        if prior is not None and not known:
            total += prior_strength * (math.log(found / prior[0]) / prior[1]) ** 2
        scores.append((name, begin, found, result.cost / max(len(observations.point), 1)))
        results.append((total, result))

    for begin in starts:
        chain = small_motion_start(observations, num_cameras, num_points, begin)
        turned = bundle_adjust(chain, observations, config=still)
        if rotation_only is None or turned.cost < rotation_only.cost:
            rotation_only = turned
        judge("small motion", begin, bundle_adjust(chain, observations, config=settings))
        pair = widest_pair(observations, num_cameras, begin)
        two_view = two_view_start(observations, num_cameras, num_points, begin, pixel_error, pair)
        if two_view is not None:
            two_view = normalise_scale(two_view, observations)
            raw.append(two_view)
            judge("two views", begin, bundle_adjust(two_view, observations, config=settings))
    best = min(results, key=lambda r: r[0])[1]
    twin = mirrored(normalise_scale(best.state, observations))
    judge(
        "mirrored", float(best.state.log_focal[0].exp()), bundle_adjust(twin, observations, config=settings)
    )
    ordered = [result for _, result in sorted(results, key=lambda r: r[0])]
    assert rotation_only is not None
    everything = torch.ones(num_points, dtype=torch.bool)
    start = StartResult(ordered[0], rotation_only, tuple(scores), tuple(ordered), everything)
    return settle_movers(start, raw, observations, num_points, pixel_error, settings)


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


def static_points(
    error: Float[Tensor, " P"], limit: float, observations: Observations, num_neighbours: int = 8
) -> Bool[Tensor, " P"]:
    """Points below the limit, among neighbours that are mostly below it, too: moving things are regions."""
    num_points = len(error)
    count = torch.bincount(observations.point, minlength=num_points).double()
    place = torch.zeros(num_points, 3, dtype=torch.float64)
    spread = float(observations.uv.std()) if len(observations.uv) > 1 else 1.0
    last = float(observations.camera.max()) + 1 if len(observations.camera) else 1.0
    row = torch.cat([observations.uv, (2 * spread / last * observations.camera)[:, None]], 1)
    place.index_add_(0, observations.point, row)
    place = place / count.clamp_min(1)[:, None]
    below = error < limit
    if num_points <= num_neighbours:
        return below
    near = torch.cdist(place, place).topk(num_neighbours + 1, largest=False).indices
    return below & (below[near].double().mean(1) > 0.5)


def noise_level(
    error: Float[Tensor, " P"], observations: Observations, floor: float, share: float = 0.25
) -> float:
    """Error of a good point: a low quantile over the points seen at least three times, as half of them may move."""
    count = torch.bincount(observations.point, minlength=len(error))
    often = error[(count >= 3) & torch.isfinite(error)]
    return max(floor, float(torch.quantile(often, share))) if len(often) else floor


def renew_points(
    state: BundleState, observations: Observations, doubtful: Bool[Tensor, " P"]
) -> tuple[BundleState, Float[Tensor, " P"]]:
    """Doubtful points triangulated anew where that explains them better; and the error of every point."""
    num_points = len(state.points)
    old = point_error(reprojection_error(state, observations), observations, num_points)
    again = triangulate(state.w2c, state.log_focal, observations, num_points)
    fresh = replace(state, points=again)
    new = point_error(reprojection_error(fresh, observations), observations, num_points)
    better = doubtful & (new < old)
    points = torch.where(better[:, None], again, state.points)
    return replace(state, points=points), torch.where(better, new, old)


MOVER_LIMIT = 3.0
"""A point moves when its error is this many times that of a good point."""

LEAST_NOISE = 0.3
"""The error of a good point is not believed to be less than this share of the expected one."""

SOME_MOVE = 0.1
"""Share of the points from which on something is said to move; below it the robust loss copes."""


def settle_movers(
    start: StartResult,
    raw: list[BundleState],
    observations: Observations,
    num_points: int,
    pixel_error: float,
    settings: BundleConfig,
    *,
    num_candidates: int = 4,
    num_rounds: int = 4,
) -> StartResult:
    """Adjust the best candidates to the points that they explain, in turns; the one that explains most wins.

    ``raw``: starts that no moving point has pulled yet; they compete, too.

    With half of the points moving the sum of robust errors prefers compromises. Static scenes come back as they are.
    """
    floor = LEAST_NOISE * pixel_error
    state, error = renew_points(start.bundle.state, observations, torch.ones(num_points, dtype=torch.bool))
    static = error < MOVER_LIMIT * noise_level(error, observations, floor)
    if float(static.double().mean()) > 1 - SOME_MOVE:
        return replace(start, static=static)
    settled: list[tuple[float, BundleResult, Tensor]] = []
    for state in [c.state for c in start.candidates[:num_candidates]] + raw:
        state, error = renew_points(state, observations, torch.ones(num_points, dtype=torch.bool))
        level = noise_level(error, observations, floor)
        for _ in range(num_rounds):
            width = max(level, floor)
            static = static_points(error, MOVER_LIMIT * width, observations)
            weight = observations.weight * static[observations.point]
            chosen = replace(observations, weight=weight)
            result = bundle_adjust(
                state, chosen, config=replace(settings, robust_width=2 * width, num_iterations=10)
            )
            state, error = renew_points(result.state, observations, ~static)
            level = noise_level(error, observations, floor)
        settled.append((level, replace(result, state=state), error))
    # All are judged by one yardstick: the noise of the sharpest of them.
    width = MOVER_LIMIT * min(level for level, _, _ in settled)
    count = torch.bincount(observations.point, minlength=num_points).double()

    def explained(error: Tensor) -> float:
        return float((count * (1 - (error / width).square()).clamp_min(0)).sum())

    level, best, error = max(settled, key=lambda c: explained(c[2]))
    static = static_points(error, MOVER_LIMIT * level, observations)
    weight = observations.weight * static[observations.point]
    best_error = reprojection_error(best.state, observations)
    turned = reprojection_error(start.rotation_only.state, observations)
    return replace(
        start,
        bundle=replace(best, error=best_error, cost=robust_cost(best_error, weight, settings.robust_width)),
        rotation_only=replace(
            start.rotation_only, cost=robust_cost(turned, weight, settings.robust_width), error=turned
        ),
        static=static,
    )
