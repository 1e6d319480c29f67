"""Starting values for cameras from tracks: rotations, two views, small motion, and which focal length to believe.

A short run of keyframes is solved from several starts (a few focal lengths, each from the essential matrix of its
widest pair and from "everything at one distance"). They race: after a few steps the worse half of each kind drops out,
and so do starts that have met. The one whose adjusted solution explains the tracks best wins.

Axis names: N cameras, P points, O observations, S shared points of two views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleResult, bundle_adjust
from geo4d.cameras.observations import Observations, spread_points
from geo4d.cameras.points import normalise_scale, point_error, points_at_one_distance, triangulate
from geo4d.cameras.rotations import rotation_chain
from geo4d.cameras.terms import BundleState
from geo4d.cameras.two_views import two_view_start, widest_pair
from geo4d.geometry.poses import rigid

MOVER_LIMIT = 3.0
"""A point moves when its error is this many times that of a good point."""


LEAST_NOISE = 0.3
"""The error of a good point is not believed to be less than this share of the expected one."""


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


def small_motion_start(
    observations: Observations, num_cameras: int, num_points: int, focal: float
) -> BundleState:
    """Rotations from the chain, no translation, all points at one distance."""
    rotations = rotation_chain(observations, num_cameras, focal)
    w2c = rigid(rotations, torch.zeros(num_cameras, 3, dtype=torch.float64))
    points = points_at_one_distance(w2c, focal, observations, num_points)
    return BundleState(w2c, torch.full((num_cameras,), math.log(focal), dtype=torch.float64), points)


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


def noise_level(
    error: Float[Tensor, " P"], observations: Observations, floor: float, share: float = 0.25
) -> float:
    """Error of a good point: a low quantile over the points seen at least three times, as half of them may move."""
    count = torch.bincount(observations.point, minlength=len(error))
    often = error[(count >= 3) & torch.isfinite(error)]
    return max(floor, float(torch.quantile(often, share))) if len(often) else floor
