"""The last word on the cameras of a shot: sharper adjustment, cameras grown again, other rigid parts of the scene tried.

A good start explains the tracks to far less than the error that was expected of them. Here that level is measured, so
that whatever does not fit it, be it moving or tracked badly, is left out; cameras that explain too little are solved
again from those that explain much; and where a large part of the pictures stays unexplained, other runs of cameras,
begun from pairs all over the shot, compete with the solution. The one that explains the largest area wins.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.bundle import BundleConfig, BundleResult, bundle_adjust
from geo4d.cameras.grow import grow, outward
from geo4d.cameras.observations import Observations, observation_area, point_area
from geo4d.cameras.points import level_of, renew_points
from geo4d.cameras.terms import BundleState, reprojection_error, tidy
from geo4d.cameras.thresholds import INLIER, LOOSE, STRAY


@dataclass(frozen=True)
class Refined:
    """A solution with the points made anew from its cameras.

    Attributes:
        state: cameras and points.
        error: of every point, pixels per coordinate (see ``point_error``).
        level: error of a good point, pixels.
        area: how much of the pictures every point stands for, in pictures' cells (see ``observation_area``).
        result: the adjustment that the state came from, or None.
    """

    state: BundleState
    error: Float[Tensor, " P"]
    level: float
    area: Float[Tensor, " P"]
    result: BundleResult | None = None

    @property
    def static(self) -> Bool[Tensor, " P"]:
        """True for points that stand still: their error is below ``INLIER`` times the level."""
        return self.error < INLIER * self.level

    def explained(self, level: float) -> float:
        """Share of the area that points explain, those that fit better counting more.

        Args:
            level: error of a good point, pixels: the yardstick when several solutions are compared.
        """
        fit = (1 - (self.error / (INLIER * level)).square()).clamp_min(0)
        return float((self.area * fit).sum() / self.area.sum().clamp_min(1e-9))

    def share_explained(self, pixel_error: float) -> float:
        """Share of the area whose points may be still, if tracked badly: error at most ten times that of a good one.

        Args:
            pixel_error: expected of a track; the limit is between two and five times that.
        """
        limit = min(max(10 * self.level, 2 * pixel_error), 5 * pixel_error)
        return float(self.area[self.error < limit].sum() / self.area.sum().clamp_min(1e-9))


def judge_state(state: BundleState, observations: Observations) -> Refined:
    """Make every point anew where that fits better, and measure what the cameras explain."""
    state, error = renew_points(tidy(state), observations)
    state = _before_infinity(state)
    area = point_area(observations, len(state.points))
    return Refined(state, error, level_of(error, observations, area), area)


def _before_infinity(state: BundleState) -> BundleState:
    """The twin with most points at positive inverse depth: turning all translations and inverse depths over changes no
    picture, so an adjustment cannot tell them apart."""
    if float((state.points[:, 3] < 0).double().mean()) <= 0.5:
        return state
    turned = state.points.new_tensor([1.0, 1.0, 1.0, -1.0])
    w2c = state.w2c.clone()
    w2c[:, :3, 3] *= -1
    return replace(state, w2c=w2c, points=state.points * turned)


def refine(
    state: BundleState,
    observations: Observations,
    settings: BundleConfig,
    num_rounds: int = 4,
    num_iterations: int = 10,
    most: float = math.inf,
) -> Refined:
    """Adjust to the points that fit, measure how well they fit, and again.

    Args:
        settings: robust width and number of steps are replaced; ``prior_strength`` is in squares of the level found.
        num_rounds, num_iterations: adjustments, and steps of each.
        most: no point is used because others are worse than this, pixels; without it a solution that follows the wrong
            points takes in ever more of them.
    """
    current = judge_state(state, observations)
    for turn in range(num_rounds):
        current = replace(current, level=min(current.level, most))
        limit = (LOOSE if turn == 0 else INLIER) * current.level
        near = reprojection_error(current.state, observations) < STRAY * current.level
        weight = observations.weight * (near & (current.error < limit)[observations.point])
        config = replace(
            settings,
            num_iterations=num_iterations,
            robust_width=INLIER * current.level,
            prior_strength=settings.prior_strength * current.level**2,
            tolerance=1e-5,
            reliability=turn == num_rounds - 1,
        )
        result = bundle_adjust(current.state, replace(observations, weight=weight), config=config)
        current = replace(judge_state(result.state, observations), result=result)
    return current


def frame_shares(refined: Refined, observations: Observations) -> tuple[Tensor, Tensor]:
    """Per camera: share of its area that static points cover, and their number."""
    num_cameras = len(refined.state.w2c)
    area = observation_area(observations)
    good = refined.static[observations.point].double()

    def per_camera(values: Tensor) -> Tensor:
        return torch.zeros(num_cameras, dtype=torch.float64).index_add_(0, observations.camera, values)

    return per_camera(good * area) / per_camera(area).clamp_min(1e-9), per_camera(good)


def best_core(refined: Refined, observations: Observations, length: int = 6) -> tuple[int, int]:
    """The run of cameras that explain most of what they see, with enough points."""
    share, count = frame_shares(refined, observations)
    if len(share) <= length:
        return 0, len(share)
    value = torch.minimum(share, share.median()) * count.clamp_max(60)
    begin = int(value.unfold(0, length, 1).sum(1).argmax())
    return begin, begin + length


def repair(refined: Refined, observations: Observations, settings: BundleConfig) -> Refined:
    """All cameras grown again from the best run of them; what explains more is returned."""
    num_cameras = len(refined.state.w2c)
    core = best_core(refined, observations)
    solved = torch.zeros(num_cameras, dtype=torch.bool)
    solved[core[0] : core[1]] = True
    order = outward(core, 0, num_cameras)
    zoom = settings.focal == "per_frame"
    grown = grow(refined.state, observations, solved, refined.level, order, zoom=zoom)
    return better(refined, refine(grown, observations, settings))


def better(first: Refined, *others: Refined) -> Refined:
    """The one that explains most by the yardstick of the sharpest; the first of equals."""
    level = min(r.level for r in (first, *others))
    return max((first, *others), key=lambda r: r.explained(level))
