"""Solve of one scene (Geo4D, Algorithm 1): starting values, points alone, then all terms."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.fusion.alignment import DISAGREES, NO_POINTS, AlignConfig
from geo4d.fusion.judge import Judgement, Selection, judge, window_residual
from geo4d.fusion.objective import SampledObjective, View
from geo4d.fusion.pixel_terms import Optics, Weights
from geo4d.fusion.samples import Trajectory
from geo4d.fusion.start import Scene, Start, best_start_depth, start_depth, start_scene
from geo4d.fusion.variables import Variables, number_columns
from geo4d.optimise.damped import SolveReport, minimise
from geo4d.optimise.scratch import give_back_memory


@dataclass(frozen=True)
class SceneSolution:
    """Outcome of one scene (N frames, G windows), in a world of its own.

    Attributes:
        variables: solved.
        optics: principal point and aspect of every frame.
        window_weight: weight of each window's points.
        disparity_weight: weight of each window's disparity residual in 1 / world unit; 0 where dropped.
        trajectories: those that ``variables`` aligns; the last one may be camera evidence.
        reliable: frames that a good window saw.
        diagnostics: JSON values.
    """

    variables: Variables
    optics: Optics
    window_weight: Float[Tensor, " G"]
    disparity_weight: Float[Tensor, " G"]
    trajectories: tuple[Trajectory, ...]
    reliable: Bool[Tensor, " N"]
    diagnostics: dict[str, Any]


def solve_scene(scene: Scene, config: AlignConfig, report: Callable[[str, float], None]) -> SceneSolution:
    """Cameras, focal length and window alignments of windows that hang together.

    Args:
        report: called with the name of each stage as it begins, and 0.
    """
    report("starting cameras", 0.0)
    start = start_scene(scene, config)
    give_back_memory()
    report("aligning points", 0.0)
    points, points_report = _solve_points(scene, start, config)
    report("aligning disparity and trajectories", 0.0)
    judgement = judge(scene, start.samples, points, config)
    solved_points = points.variables
    del points  # and the objective that it refers to
    give_back_memory()
    report("aligning all terms", 0.0)
    objective, solved, solved_report = _solve_all(scene, start, solved_points, judgement, config)
    weights = objective.weights
    return SceneSolution(
        variables=solved.variables,
        optics=start.optics,
        window_weight=weights.window,
        disparity_weight=_disparity_weight(weights, solved.variables),
        trajectories=start.samples.trajectories,
        reliable=_seen_by(scene, weights.window >= 0.5),
        diagnostics={
            **_diagnostics_before(scene, start, judgement),
            "terms_on_samples": {name: round(value, 6) for name, value in objective.values(solved).items()},
            "solve": {"points": asdict(points_report), "all": asdict(solved_report)},
            "window_residual": _rounded(window_residual(start.samples, solved)),
            "dropped": _dropped(scene, judgement),
        },
    )


def _solve_points(scene: Scene, start: Start, config: AlignConfig) -> tuple[View, SolveReport]:
    """First stage: points and smoothness."""
    selection = Selection.points_only(scene.bad, len(start.samples.trajectories))
    objective = _objective(scene, start, selection, None, config)
    variables = replace(start.variables, log_depth=start_depth(objective, start.variables))
    return _minimise(objective, variables, config.steps_points, widths=(0.02, 0.003), num_polish=3)


def _solve_all(
    scene: Scene, start: Start, variables: Variables, judgement: Judgement, config: AlignConfig
) -> tuple[SampledObjective, View, SolveReport]:
    """Second stage: all terms, from the solved points and the fits of disparities and trajectories."""
    typical_scale = None
    if config.disparity_in_window_unit:
        kept = judgement.disparity.scale[judgement.selection.disparity]
        typical_scale = float(kept.median()) if len(kept) else 1.0
    objective = _objective(scene, start, judgement.selection, typical_scale, config)
    variables = _with_fits(variables, judgement)
    variables = replace(variables, log_depth=best_start_depth(objective, variables))
    view, report = _minimise(objective, variables, config.steps_all, widths=(0.01, 0.001), num_polish=2)
    return objective, view, report


def _objective(
    scene: Scene, start: Start, selection: Selection, typical_scale: float | None, config: AlignConfig
) -> SampledObjective:
    """The terms that take part, with the weights of the config."""
    samples = start.samples
    per_frame = config.per_frame_factor(samples.num_frames)
    weights = Weights(
        window=config.window_weight(selection.bad),
        disparity=torch.where(selection.disparity, config.disparity_weight, 0.0).double(),
        trajectory=torch.where(selection.trajectory, config.trajectory_weight * per_frame, 0.0).double(),
        smoothness=config.smoothness_weight * per_frame,
        typical_disparity_scale=typical_scale,
        focal_smoothness=config.focal_smoothness if start.focal_kind == "per_frame" else 0.0,
    )
    columns = number_columns(
        samples.num_frames,
        samples.window_frames,
        tuple(trajectory.frames for trajectory in samples.trajectories),
        free_cameras=scene.known_c2w is None,
        focal=start.focal_kind,
        free_windows=~scene.empty,
        free_disparity=selection.disparity,
        free_trajectory=selection.trajectory,
        scaled_trajectory=selection.scaled,
    )
    return SampledObjective(samples, start.optics, weights, columns, start.gauge, scratch=scene.scratch)


def _minimise(
    objective: SampledObjective,
    variables: Variables,
    num_steps: int,
    *,
    widths: tuple[float, float],
    num_polish: int,
) -> tuple[View, SolveReport]:
    """Gauss-Newton from ``variables``; no step where no point is valid.

    Args:
        widths: reweighting floor of the first and last step.
        num_polish: steps on the depths alone before the first step.
    """
    first, last = widths
    if not bool((objective.samples.weight > 0).any()):
        return objective.view(variables, last), SolveReport(0.0, 0.0, 0, "no valid points")
    return minimise(
        objective,
        objective.view(variables, first, num_polish=num_polish),
        num_steps=num_steps,
        widths=(first, last),
        damping=1e-4,
        tolerance=2e-5,
        least_steps=4,
    )


def _with_fits(variables: Variables, judgement: Judgement) -> Variables:
    """Disparities and trajectories as they were fitted to the solved points."""
    device = variables.centre.device
    disparity, trajectory = judgement.disparity, judgement.trajectory
    return replace(
        variables,
        disparity_scale=torch.where(disparity.scale > 0, disparity.scale, 1.0).to(device),
        disparity_shift=disparity.shift.to(device),
        trajectory_scale=trajectory.scale.to(device),
        trajectory_rotation=trajectory.rotation.to(device),
        trajectory_translation=trajectory.translation.to(device),
    )


def _disparity_weight(weights: Weights, variables: Variables) -> Tensor:
    """Weight of each window's disparity residual in 1 / world unit, [G] on the CPU."""
    if weights.typical_disparity_scale is None:
        return weights.disparity
    scale = variables.disparity_scale.cpu()
    return weights.disparity * (torch.full_like(scale, weights.typical_disparity_scale) / scale)


def _seen_by(scene: Scene, chosen: Tensor) -> Tensor:
    """True for frames, [N], that one of the chosen windows sees."""
    frame, window = scene.samples.frame.cpu(), scene.samples.window.cpu()
    seen = torch.zeros(scene.samples.num_frames, dtype=torch.bool)
    seen[frame[chosen[window]]] = True
    return seen


# Diagnostics.


def _diagnostics_before(scene: Scene, start: Start, judgement: Judgement) -> dict[str, Any]:
    """What was known of windows, disparities and trajectories before the solve of all terms."""
    numbers = scene.window_numbers.tolist()
    tracks = zip(start.samples.trajectories, judgement.trajectory.rpe_rad, strict=True)
    return {
        "windows": numbers,
        "disagreement": _rounded(scene.agreement),
        "focal_start": [round(float(focal), 3) for focal in start.variables.log_focal.exp()[:1]],
        "point_residual": _rounded(judgement.point_residual),
        "disparity_error": _rounded(judgement.disparity.error),
        "disparity_share": [round(float(share), 4) for share in judgement.disparity.share],
        "trajectory_rpe_deg": {
            str(numbers[track.window] if track.window >= 0 else -1): round(float(np.degrees(rpe)), 4)
            for track, rpe in tracks
        },
    }


def _dropped(scene: Scene, judgement: Judgement) -> list[dict[str, Any]]:
    """What does not take part and why, by number of the window in the video."""
    why_no_points = {
        int(scene.window_numbers[place]): NO_POINTS if bool(scene.empty[place]) else DISAGREES
        for place in torch.nonzero(judgement.selection.bad)[:, 0].tolist()
    }
    reasons = {
        "points": why_no_points,
        "disparity": judgement.why_no_disparity,
        "trajectory": judgement.why_no_trajectory,
    }
    return [
        {"window": window, "what": what, "why": why}
        for what, by_window in reasons.items()
        for window, why in by_window.items()
    ]


def _rounded(values: Tensor) -> list[float | None]:
    """For JSON, which knows no infinity and no NaN."""
    return [round(float(value), 6) if np.isfinite(value) else None for value in values]
