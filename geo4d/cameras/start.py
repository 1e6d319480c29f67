"""Starting values for cameras from tracks: rotations, two views, small motion, and which focal length is the likeliest.

A short run of keyframes is solved from several hypotheses (a few focal lengths, each from the essential matrix of its
widest pair and from "everything at one distance"). After a few steps the worse half of each kind drops out, and so do
those that came to the solution of a better one. The one whose adjusted solution explains the tracks best is selected.

Axis names: N cameras, P points, O observations, S shared points of two views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleResult, bundle_adjust
from geo4d.cameras.observations import Observations, point_area, spread_points
from geo4d.cameras.points import level_of, normalise_scale, point_error, points_at_one_distance, triangulate
from geo4d.cameras.rotations import rotation_chain
from geo4d.cameras.terms import BundleState
from geo4d.cameras.thresholds import INLIER
from geo4d.cameras.two_views import two_view_start, widest_pair
from geo4d.geometry.poses import rigid


@dataclass(frozen=True)
class StartResult:
    """The best solution of a run of keyframes, and what it competed with.

    Attributes:
        bundle: the winner; its focal lengths differ where the search was asked to let them.
        rotation_only: the best solution without translation.
        scores: (start, focal at the start, focal found, robust cost per observation) of every start.
        static: inliers of the winner; the others move, or were tracked badly.
        level: error of a good point, pixels.
    """

    bundle: BundleResult
    rotation_only: BundleResult
    scores: tuple[tuple[str, float, float, float], ...]
    static: Bool[Tensor, " P"]
    level: float


def small_motion_start(
    observations: Observations, num_cameras: int, num_points: int, focal: float
) -> BundleState:
    """Rotations of ``rotation_chain``, no translation, every point one unit away on the ray that saw it first.

    Args:
        observations: cameras are numbered in time.
        focal: of all cameras, pixels.
    """
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
    zoom: bool = False,
) -> StartResult:
    """Solve a short run of keyframes from several starts, and return the best.

    Args:
        observations: cameras numbered 0 .. num_cameras - 1 in time.
        width: of the picture, pixels.
        pixel_error: expected error of a track, pixels.
        focal: known focal length, or None to search.
        prior: (focal, spread of its logarithm) for the adjustment and the choice.
        prior_strength: see ``BundleConfig``.
        search_points: points at most that the starts are adjusted to.
        zoom: every keyframe has a focal length of its own from the first step on.
    """
    known = focal is not None
    focals = (focal,) if focal is not None else focal_starts(width, prior)
    settings = BundleConfig(
        robust_width=2 * pixel_error,
        focal="fixed" if known else "per_frame" if zoom else "shared",
        focal_prior=None if known else prior,
        prior_strength=prior_strength,
        tolerance=1e-3,
        reliability=False,
    )
    few = spread_points(observations, num_points, search_points)
    rows = few[observations.point]
    some = observations.select(rows, (torch.cumsum(few, 0) - 1)[observations.point[rows]])
    candidates, turned = adjust_hypotheses(some, num_cameras, int(few.sum()), focals, pixel_error, settings)
    scores = tuple((r.name, r.begin, r.focal, r.cost / max(len(some.point), 1)) for r in candidates)

    distant = points_at_one_distance(turned.state.w2c, turned.focal, observations, num_points)
    turning = replace(settings, with_translation=False, num_iterations=4)
    rotation_only = bundle_adjust(replace(turned.state, points=distant), observations, config=turning)
    best = candidates[0].state
    points = triangulate(best.w2c, best.log_focal, observations, num_points)
    found = bundle_adjust(
        replace(best, points=points), observations, config=replace(settings, num_iterations=6)
    )
    error = point_error(found.error, observations, num_points)
    level = level_of(error, observations, point_area(observations, num_points))
    return StartResult(found, rotation_only, scores, error < INLIER * level, level)


def adjust_hypotheses(
    observations: Observations,
    num_cameras: int,
    num_points: int,
    focals: tuple[float, ...],
    pixel_error: float,
    settings: BundleConfig,
) -> tuple[list[Hypothesis], Hypothesis]:
    """All starts in rounds of a few steps, of which fewer and fewer are left.

    Returns:
        the last ones, best first; the best without translation.
    """
    chains, two_views = [], []
    for begin in focals:
        state = small_motion_start(observations, num_cameras, num_points, begin)
        chains.append(Hypothesis("small motion", begin, state))
        pair = widest_pair(observations, num_cameras, begin)
        found = two_view_start(observations, num_cameras, num_points, begin, pixel_error, pair)
        if found is not None:
            two_views.append(Hypothesis("two views", begin, normalise_scale(found, observations)))

    def advance(hypotheses: list[Hypothesis], num_iterations: int, num_left: int) -> list[Hypothesis]:
        return select(hypotheses, observations, replace(settings, num_iterations=num_iterations), num_left)

    turning = replace(settings, with_translation=False)
    turned = select(chains, observations, replace(turning, num_iterations=3), 1)
    turned = select(turned, observations, replace(turning, num_iterations=9), 1)
    candidates = sorted(advance(chains, 5, 2) + advance(two_views, 5, 3), key=Hypothesis.total)
    candidates += [
        Hypothesis("mirrored", one.focal, mirrored(normalise_scale(one.state, observations)))
        for one in candidates
    ]
    candidates = advance(advance(candidates, 6, 3), 14, 3)
    return candidates, turned[0]


@dataclass(frozen=True)
class Hypothesis:
    """One start on its way to a solution: where it began (pixels) and where it is."""

    name: str
    begin: float
    state: BundleState
    result: BundleResult | None = None

    @property
    def focal(self) -> float:
        """Horizontal focal length of the first frame, pixels."""
        return float(self.state.log_focal[0].exp())

    @property
    def cost(self) -> float:
        """Cost of the tracks alone, as ``BundleResult.cost``."""
        return self.solved().cost

    def total(self) -> float:
        """Cost with the prior of the focal length."""
        return self.solved().total_cost

    def solved(self) -> BundleResult:
        """The last adjustment; there must have been one."""
        assert self.result is not None
        return self.result


def select(
    hypotheses: list[Hypothesis], observations: Observations, settings: BundleConfig, num_left: int
) -> list[Hypothesis]:
    """Adjust all for some steps; the best are left, best first, without those that a better one equals."""
    moved = []
    for hypothesis in hypotheses:
        result = bundle_adjust(hypothesis.state, observations, config=settings)
        moved.append(replace(hypothesis, state=result.state, result=result))
    moved.sort(key=Hypothesis.total)
    left: list[Hypothesis] = []
    for hypothesis in moved:
        if len(left) < num_left and not any(same_solution(hypothesis, other) for other in left):
            left.append(hypothesis)
    return left


def same_solution(a: Hypothesis, b: Hypothesis) -> bool:
    """Whether two starts have come to the same solution: focal length and cost within a percent."""
    return abs(math.log(a.focal / b.focal)) < 0.01 and abs(a.cost - b.cost) < 0.01 * max(a.cost, b.cost)
