"""Whether the lens may zoom: quick looks at what a focal length for every camera explains.

A zoom hides in a path: moving towards a scene enlarges it, too, and points of unknown depth take up what is left. So two
questions are asked of a solution with one focal length: whether focal lengths of their own would improve it, and whether
a camera that only turns and zooms would do as well.
"""

from __future__ import annotations

from dataclasses import replace

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.frames import Adjusted
from geo4d.cameras.judge import correlation_inflation
from geo4d.cameras.kind import select_kind
from geo4d.cameras.problem import ShotProblem
from geo4d.cameras.rotations import mean_directions
from geo4d.cameras.terms import BundleState, project_points
from geo4d.cameras.thresholds import MAY_ZOOM


def may_zoom(problem: ShotProblem, grown: BundleState, one: Adjusted, settings: BundleConfig) -> bool:
    """Whether it is worth while to solve a shot again with a focal length for every camera.

    Args:
        grown: keyframes before they were adjusted together: from there both may find their best.
        one: keyframes adjusted with one focal length for all.
        settings: of that adjustment.
    """
    view, result = one.view, one.result
    used = view.observations.select((view.observations.weight > 0).nonzero()[:, 0])
    if view.num_cameras < 3 or len(used.point) == 0:
        return False
    one = Adjusted(replace(view, observations=used), result)
    free = replace(settings, focal="per_frame", reliability=False)
    return _gains(grown, one, free) or (settings.with_translation and _only_turns(problem, one, free))


def _gains(grown: BundleState, one: Adjusted, free: BundleConfig) -> bool:
    """Whether the solution gets better; see ``MAY_ZOOM``."""
    used, result = one.view.observations, one.result
    num_cameras = one.view.num_cameras
    zoomed = bundle_adjust(grown, used, config=replace(free, num_iterations=15))
    spare = max(2 * len(used.point) - 3 * len(used.point.unique()) - 7 * num_cameras, 1)
    misfit = project_points(zoomed.state, used)[0] - used.uv
    noise = zoomed.cost / spare * correlation_inflation(misfit, used, free.robust_width)
    gain = (result.cost - zoomed.cost) / (num_cameras - 1) / max(noise, 1e-12)
    focal = zoomed.state.log_focal
    least_gain, least_change = MAY_ZOOM
    return gain > least_gain and float(focal.max() - focal.min()) > least_change


def _only_turns(problem: ShotProblem, one: Adjusted, free: BundleConfig) -> bool:
    """Whether a camera without translation that zooms leaves hardly more unexplained."""
    used, state = one.view.observations, one.result.state
    w2c = state.w2c.clone()
    w2c[:, :3, 3] = 0
    points = mean_directions(w2c, state.log_focal, used, one.view.num_points)
    settings = replace(free, with_translation=False, num_iterations=20)
    turned = bundle_adjust(BundleState(w2c, state.log_focal, points), used, config=settings)
    num_points = len(used.point.unique())
    kind, _ = select_kind(problem, turned, one.result.cost, num_points, used.weight > 0, one.view.num_cameras)
    return kind != "parallax"
