"""Model selection: whether the camera of a shot moves, turns or stands still.

Axis names: N cameras, P points, O observations.
"""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from geo4d.cameras.bundle import BundleResult, bundle_adjust
from geo4d.cameras.keyframes import KeyframeView
from geo4d.cameras.observations import Observations
from geo4d.cameras.problem import ShotProblem, refine_settings
from geo4d.cameras.refine import Refined
from geo4d.cameras.rotations import mean_directions, relative_rotations
from geo4d.cameras.start import StartResult
from geo4d.cameras.terms import BundleState, reprojection_error, robust_cost
from geo4d.cameras.types import MotionKind
from geo4d.geometry.poses import rotation_angle


def kind_of_start(
    problem: ShotProblem, start: StartResult, window: Observations, num_cameras: int
) -> tuple[MotionKind, float]:
    """Does a translation explain the tracks so much better than a rotation that it must be real?"""
    rows = start.static[window.point]
    count = int(start.static.sum())
    return select_kind(problem, start.rotation_only, start.bundle.cost, count, rows, num_cameras)


def kind_of_refined(problem: ShotProblem, view: KeyframeView, refined: Refined) -> tuple[MotionKind, float]:
    """As ``kind_of_start``, for the still points of a whole solution."""
    obs, state = view.observations, refined.state
    rows = refined.static[obs.point]
    chosen = replace(obs, weight=rows.double())
    points = mean_directions(state.w2c, state.log_focal, obs, view.num_points)
    w2c = state.w2c.clone()
    w2c[:, :3, 3] = 0
    width = 2 * problem.pixel_error
    settings = replace(
        refine_settings(problem, "rotation"),
        num_iterations=8,
        robust_width=width,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        reliability=False,
    )
    turned = bundle_adjust(BundleState(w2c, state.log_focal, points), chosen, config=settings)
    cost = robust_cost(reprojection_error(state, obs), chosen.weight, width)
    return select_kind(problem, turned, cost, int(refined.static.sum()), rows, len(state.w2c))


def select_kind(
    problem: ShotProblem,
    turned: BundleResult,
    cost: float,
    num_points: int,
    rows: Bool[Tensor, " O"],
    num_cameras: int,
) -> tuple[MotionKind, float]:
    """The kind of motion, and the median error of the solution without translation, pixels.

    Args:
        turned: the best solution without translation.
        cost: of the best one with it.
        num_points: still points.
        rows: their observations.
    """
    parallax = float(turned.error[rows].median()) if bool(rows.any()) else 0.0
    spare = max(2 * int(rows.sum()) - 3 * num_points - 6 * num_cameras, 1)
    noise = max(cost / spare, (0.1 * problem.pixel_error) ** 2)
    gain = (turned.cost - cost) / (num_points + 3 * num_cameras) / noise
    if gain > problem.config.parallax_test and parallax > 0.5 * problem.pixel_error:
        return "parallax", parallax
    return turning_kind(problem, turned), parallax


def turning_kind(problem: ShotProblem, turned: BundleResult) -> MotionKind:
    """Whether a camera without translation turns at all."""
    angle = rotation_angle(relative_rotations(turned.state.w2c)).max()
    moved = float(angle) * float(turned.state.log_focal[0].exp())
    return "rotation" if moved > 2 * problem.pixel_error else "static"
