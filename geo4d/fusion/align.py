"""Windows to one world: the stages of the multi-modal alignment (Geo4D, Algorithm 1).

``align`` reads every prediction once and returns cameras and window alignments; ``iter_dense`` makes the dense maps
frame by frame from these; ``fuse`` does both in memory.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion.alignment import (
    CALIBRATION_FRAMES,
    DISAGREES,
    NO_POINTS,
    AlignConfig,
    Alignment,
    CameraEvidence,
)
from geo4d.fusion.init import (
    choose_cameras,
    disagreeing_windows,
    fit_disparities,
    fit_focals,
    fit_trajectories,
    masked_median,
    register_windows,
    window_poses,
)
from geo4d.fusion.objective import ObjectiveValues, Optics, SampledObjective, Weights, evaluate_objective
from geo4d.fusion.samples import Samples, Trajectory, restrict, take_samples
from geo4d.fusion.solver import SolveReport, gauss_newton
from geo4d.fusion.stitch import stitch
from geo4d.fusion.variables import Variables, number_columns, scale_world
from geo4d.geometry.cameras import intrinsics_matrix
from geo4d.geometry.poses import nearest_rotation, rigid, similarity, similarity_parts
from geo4d.types import Prediction

log = logging.getLogger(__name__)


def align(
    predictions: Sequence[Prediction],
    *,
    num_frames: int,
    config: AlignConfig | None = None,
    size: tuple[int, int] | None = None,
    known_intrinsics: Float[Tensor, "T 3 3"] | None = None,
    known_c2w: Float[Tensor, "T 4 4"] | None = None,
    motion: CameraEvidence | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Alignment:
    """Cameras, focal length and window alignments of a video from the predictions of its windows.

    Every prediction is read once; what stays in memory grows with frames x ``num_samples``.

    Args:
        num_frames: of the processed sequence; frames that no window sees get a camera between their neighbours'.
        size: (height, width) of the maps; None takes that of the first prediction.
        known_intrinsics, known_c2w: held fixed; the world is then that of ``known_c2w``.
        motion: cameras from tracks, used as one more trajectory.
        progress: called with a stage's name and the share done.
    Raises:
        ValueError: no predictions, maps of several sizes, frames out of range, or mixed kinds of predictions.
    """
    config = config or AlignConfig.corrected()
    if len(predictions) == 0:
        raise ValueError("expected at least one prediction, got none")
    if _is_camera_frame(predictions[0]):
        return stitch(
            predictions,
            num_frames=num_frames,
            config=config,
            size=size,
            known_intrinsics=known_intrinsics,
            known_c2w=known_c2w,
            motion=motion,
            progress=progress,
        )
    with one_thread():
        return _align_windows(
            predictions, num_frames, size, config, known_intrinsics, known_c2w, motion, device, progress
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the kernels inside: they are so small that more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _align_windows(
    predictions: Sequence[Prediction],
    num_frames: int,
    size: tuple[int, int] | None,
    config: AlignConfig,
    known_intrinsics: Tensor | None,
    known_c2w: Tensor | None,
    motion: CameraEvidence | None,
    device: torch.device | str | None,
    progress: Callable[[str, float], None] | None,
) -> Alignment:
    samples = take_samples(
        predictions,
        num_frames=num_frames,
        size=size,
        num_samples=config.num_samples,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
        use_points=config.use_points,
        use_disparity=config.use_disparity,
        use_trajectory=config.use_trajectory,
        mask_sky=config.mask_sky,
        seed=config.seed,
        device=device,
        progress=progress,
    )
    return align_samples(
        samples,
        config=config,
        known_intrinsics=known_intrinsics,
        known_c2w=known_c2w,
        motion=motion,
        report=progress or (lambda stage, share: None),
    )


def _is_camera_frame(prediction: Prediction) -> bool:
    return (
        prediction.point_map is not None
        and prediction.point_frame == "camera"
        and prediction.ray_c2w is None
        and prediction.c2w is None
    )


def align_samples(
    samples: Samples,
    *,
    config: AlignConfig,
    known_intrinsics: Tensor | None,
    known_c2w: Tensor | None,
    motion: CameraEvidence | None,
    report: Callable[[str, float], None],
) -> Alignment:
    """``align`` after the reading: one solve per group of windows that hang together."""
    num_windows = samples.num_windows
    if not bool((samples.weight > 0).any()):
        log.warning("no window has a valid point: all frames are marked unreliable, and there is no depth")
    report("registering windows", 0.0)
    registration = register_windows(samples)
    valid_points = torch.zeros(num_windows, device=samples.weight.device).index_add_(
        0, samples.window, (samples.weight > 0).sum(1).float()
    )
    middle = torch.tensor([float(frames.double().mean()) for frames in samples.window_frames])
    empty = (valid_points < 24).cpu()
    component = _attach(registration.component, empty, middle)
    # Windows whose every frame belongs to another group share nothing that could place them there: they are no scene.
    alone = ~torch.isin(component, _scene_of_frames(samples, component))
    while bool(alone.any()):
        empty = empty | alone
        weight = torch.where(alone.to(samples.window.device)[samples.window][:, None], 0.0, samples.weight)
        samples = replace(samples, weight=weight)
        component = _attach(registration.component, empty, middle)
        alone = ~torch.isin(component, _scene_of_frames(samples, component)) & ~empty
    bad = disagreeing_windows(
        registration, ratio=config.max_disagreement, floor=2e-3, ceiling=config.bad_disagreement
    )
    if config.force_bad_windows is not None:
        bad = torch.zeros_like(bad)
        bad[list(config.force_bad_windows)] = True
    component = _number_by_time(component, middle)
    scene_of_frame = _scene_of_frames(samples, component)
    parts = []
    num_scenes = int(component.max()) + 1
    for scene in range(num_scenes):
        windows = torch.nonzero(component == scene)[:, 0]
        frames = torch.nonzero(scene_of_frame == scene)[:, 0]
        part = samples if num_scenes == 1 else restrict(samples, windows, frames)
        evidence = motion
        if motion is not None and num_scenes > 1:
            evidence = CameraEvidence(
                motion.c2w[frames], motion.intrinsics[frames], motion.confidence[frames]
            )
        parts.append(
            _align_scene(
                part,
                registration.world[windows],
                registration.agreement[windows],
                bad[windows],
                empty[windows],
                config=config,
                known_intrinsics=None if known_intrinsics is None else known_intrinsics[frames],
                known_c2w=None if known_c2w is None else known_c2w[frames],
                motion=evidence,
                report=report,
                window_numbers=windows,
            )
        )
    return _merge_scenes(samples, component, scene_of_frame, parts, registration.agreement, config)


def _attach(component: Tensor, empty: Tensor, middle: Tensor) -> Tensor:
    """Group of each window: that of the registration; one without valid points joins the nearest that has some."""
    if bool(empty.all()):
        return torch.zeros_like(component)
    full = torch.nonzero(~empty)[:, 0]
    nearest = (middle[:, None] - middle[full]).abs().argmin(1)
    return torch.where(empty, component[full[nearest]], component)


def _number_by_time(component: Tensor, middle: Tensor) -> Tensor:
    """Scene numbers in the order of their first window."""
    values = component.unique()
    first = torch.stack([middle[component == value].min() for value in values])
    rank = torch.empty_like(values)
    rank[torch.argsort(first, stable=True)] = torch.arange(len(values))
    return rank[torch.searchsorted(values, component)]


def _scene_of_frames(samples: Samples, component: Tensor) -> Tensor:
    """Scene of each frame: that of most of its windows; unseen frames take that of the nearest seen frame."""
    votes = torch.zeros(samples.num_frames, int(component.max()) + 1)
    votes.index_put_(
        (samples.frame.cpu(), component[samples.window.cpu()]),
        torch.ones(len(samples.frame)),
        accumulate=True,
    )
    seen = votes.sum(1) > 0
    scene = votes.argmax(1)
    if not bool(seen.all()):
        where = torch.nonzero(seen)[:, 0]
        nearest = where[(torch.arange(len(seen))[:, None] - where).abs().argmin(1)]
        scene = scene[nearest]
    return scene


@dataclass(frozen=True)
class _Scene:
    """Outcome of one solve."""

    variables: Variables
    optics: Optics
    window_weight: Tensor
    disparity_weight: Tensor
    trajectory_kept: Tensor
    trajectories: tuple[Trajectory, ...]
    frame_weight: Tensor
    diagnostics: dict[str, Any]


def _optics(
    samples: Samples, config: AlignConfig, known_intrinsics: Tensor | None
) -> tuple[Optics, Tensor | None]:
    """Principal point and aspect of every frame, and the known log focal lengths."""
    height, width = samples.size
    if known_intrinsics is not None:
        k = known_intrinsics.double().cpu()
        return Optics(k[:, :2, 2], k[:, 1, 1] / k[:, 0, 0]), k[:, 0, 0].log()
    point = config.principal_point or (width / 2, height / 2)
    principal = torch.tensor(point, dtype=torch.float64).expand(samples.num_frames, 2)
    # A predictor that states unequal focal lengths fixes their ratio.
    stated = samples.focal[:, 1] / samples.focal[:, 0]
    aspect = float(stated[stated.isfinite()].median()) if bool(stated.isfinite().any()) else 1.0
    return Optics(principal, torch.full((samples.num_frames,), aspect, dtype=torch.float64)), None


def _align_scene(
    samples: Samples,
    world: Tensor,
    agreement: Tensor,
    bad: Tensor,
    empty: Tensor,
    *,
    config: AlignConfig,
    known_intrinsics: Tensor | None,
    known_c2w: Tensor | None,
    motion: CameraEvidence | None,
    report: Callable[[str, float], None],
    window_numbers: Tensor,
) -> _Scene:
    device = samples.points.device
    num_frames, num_windows = samples.num_frames, samples.num_windows
    height, width = samples.size
    diagnostics: dict[str, Any] = {"windows": window_numbers.tolist()}
    bad = bad | empty
    diagnostics["disagreement"] = [round(float(a), 6) if np.isfinite(a) else None for a in agreement]
    window_weight = torch.where(bad, config.bad_weight, 1.0).double()

    # Focal lengths from each window's first frame.
    report("starting cameras", 0.0)
    optics, known_log_focal = _optics(samples, config, known_intrinsics)
    longer = float(max(height, width))
    limits = tuple(0.5 * longer / np.tan(0.5 * np.radians(fov)) for fov in reversed(config.fov_limits_deg))
    first_rows = torch.zeros(num_windows, dtype=torch.long, device=device)
    is_first = samples.local == 0
    first_rows[samples.window[is_first]] = torch.nonzero(is_first)[:, 0]
    offset = samples.pixels - optics.principal_point[..., None].to(samples.pixels)
    first_offset = offset[samples.frame[first_rows]].clone()
    first_offset[:, 1] /= optics.aspect.to(samples.pixels)[samples.frame[first_rows], None]
    fits = fit_focals(
        samples.points[first_rows],
        first_offset,
        samples.weight[first_rows],
        samples.z_offset.to(device),
        limits=(float(limits[0]), float(limits[1])),
    )
    log_focal, focal_kind = _start_focal(
        samples, fits.focal.cpu(), ~bad, known_log_focal, motion, config, first_rows, longer
    )
    diagnostics["focal_start"] = [round(float(f), 3) for f in log_focal.exp()[:1]]

    # Cameras.
    rays = _rays(offset, log_focal, optics)
    shift = torch.where(torch.isfinite(fits.shift), fits.shift, 0.0).cpu()
    poses = window_poses(samples, rays[samples.frame], shift, samples.trajectories)
    c2w = choose_cameras(samples, rays, world, poses, shift, window_weight, samples.trajectories)
    trajectories = samples.trajectories
    if motion is not None:
        trajectories = (
            *trajectories,
            Trajectory(
                torch.arange(num_frames),
                motion.c2w.double().cpu(),
                config.evidence_weight * motion.confidence.double().cpu(),
                -1,
            ),
        )
        samples = replace(samples, trajectories=trajectories)
    scale, rotation_w, translation_w = similarity_parts(world.to(device))
    if known_c2w is not None:
        move = _onto_cameras(c2w, known_c2w.double().to(device))
        moved = move @ world.to(device)
        scale, rotation_w, translation_w = similarity_parts(moved)
        c2w = known_c2w.double().to(device)
    num_tracks = len(trajectories)
    variables = Variables(
        rotation=c2w[:, :3, :3],
        centre=c2w[:, :3, 3],
        log_focal=log_focal.to(device),
        window_scale=scale,
        window_rotation=rotation_w,
        window_translation=translation_w,
        disparity_scale=torch.ones(num_windows, dtype=torch.float64, device=device),
        disparity_shift=torch.zeros(num_windows, dtype=torch.float64, device=device),
        trajectory_scale=torch.ones(num_tracks, dtype=torch.float64, device=device),
        trajectory_rotation=torch.eye(3, dtype=torch.float64, device=device).repeat(num_tracks, 1, 1),
        trajectory_translation=torch.zeros(num_tracks, 3, dtype=torch.float64, device=device),
        log_depth=torch.zeros(samples.pixels.shape[0], samples.pixels.shape[2], device=device),
    )
    gauge = None
    if known_c2w is None:
        gauge = ~bad if bool((~bad).any()) else torch.ones_like(bad)
        if not config.disparity_in_window_unit:
            gauge = torch.ones_like(bad)
        variables = _fix_scale(variables, gauge)
    per_frame = CALIBRATION_FRAMES / num_frames if config.average_per_frame else 1.0
    smoothness = config.smoothness_weight * per_frame
    trajectory_weight = config.trajectory_weight * per_frame
    frames_of = tuple(t.frames for t in trajectories)
    none = torch.zeros(num_windows, dtype=torch.float64)
    free_windows = ~empty if bool((~empty).any()) else torch.zeros_like(empty)

    # Stage A: points and smoothness.
    report("aligning points", 0.0)
    objective = SampledObjective(
        samples,
        optics,
        Weights(
            window_weight,
            none,
            torch.zeros(num_tracks, dtype=torch.float64),
            smoothness,
            focal_smoothness=config.focal_smoothness if focal_kind == "per_frame" else 0.0,
        ),
        number_columns(
            num_frames,
            samples.window_frames,
            frames_of,
            free_cameras=known_c2w is None,
            focal=focal_kind,
            free_windows=free_windows,
            free_disparity=torch.zeros(num_windows, dtype=torch.bool),
            free_trajectory=torch.zeros(num_tracks, dtype=torch.bool),
        ),
        gauge,
    )
    variables = replace(variables, log_depth=_start_depth(objective, variables))
    if bool((samples.weight > 0).any()):
        view, solve_a = gauss_newton(
            objective,
            objective.view(variables, 0.02, num_polish=3),
            num_steps=config.steps_points,
            width_start=0.02,
            width_end=0.003,
        )
        variables = view.variables
    else:
        view = objective.view(variables, 0.003)
        solve_a = SolveReport(0.0, 0.0, 0, "no valid points")

    # Between the stages: alignment of disparity and trajectories, and which windows may take part.
    report("aligning disparity and trajectories", 0.0)
    depth = variables.log_depth.exp()
    point_residual = _window_residual(samples, view.distance) / variables.window_scale.cpu()
    judge = config.max_disagreement is not None and config.force_bad_windows is None
    if judge and config.max_disagreement is not None and int((~bad).sum()) > 2:
        typical = float(point_residual[~bad].nanmedian())
        worse = point_residual > config.max_disagreement * max(typical, 2e-3)
        bad |= worse.nan_to_num(nan=0).bool()
        window_weight = torch.where(bad, config.bad_weight, 1.0).double()
    diagnostics["point_residual"] = [round(float(r), 6) if np.isfinite(r) else None for r in point_residual]
    confident = (samples.weight > 0.5 * min(1.0, float(samples.weight.max()) or 1.0)).float()
    seen_well = torch.zeros_like(variables.log_depth).index_add_(0, samples.frame, confident) > 0
    usable = seen_well[samples.frame] & (samples.disparity_mask > 0)
    scale_d, shift_d, error_d, share_d = (value.cpu() for value in fit_disparities(samples, depth, usable))
    kept_d, why_local = _usable_disparities(scale_d, error_d, share_d, config)
    why_d = {int(window_numbers[window]): why for window, why in why_local.items()}
    if config.force_dropped_disparity is not None:
        forced = set(config.force_dropped_disparity)
        kept_d = torch.tensor([int(w) not in forced for w in window_numbers])
        kept_d &= share_d > 0
        why_d = {int(w): "forced" for w in window_numbers if int(w) in forced}
    diagnostics["disparity_error"] = [round(float(e), 6) if np.isfinite(e) else None for e in error_d]
    diagnostics["disparity_share"] = [round(float(s), 4) for s in share_d]
    own_scale = [float(variables.window_scale[t.window]) if t.window >= 0 else 1.0 for t in trajectories]
    fits_t = fit_trajectories(
        trajectories,
        variables.rotation.cpu(),
        variables.centre.cpu(),
        torch.tensor(own_scale, dtype=torch.float64),
    )
    kept_t, why_t = _usable_trajectories(trajectories, fits_t.rpe_rad, window_numbers, config)
    diagnostics["trajectory_rpe_deg"] = {
        str(int(window_numbers[t.window]) if t.window >= 0 else -1): round(float(np.degrees(rpe)), 4)
        for t, rpe in zip(trajectories, fits_t.rpe_rad, strict=True)
    }
    positive = scale_d > 0
    variables = replace(
        variables,
        disparity_scale=torch.where(positive, scale_d, 1.0).to(device),
        disparity_shift=shift_d.to(device),
    )
    variables = replace(
        variables,
        trajectory_scale=fits_t.scale.to(device),
        trajectory_rotation=fits_t.rotation.to(device),
        trajectory_translation=fits_t.translation.to(device),
    )
    typical_scale = None
    if config.disparity_in_window_unit:
        typical_scale = float(scale_d[kept_d].median()) if bool(kept_d.any()) else 1.0

    # Stage B: all terms.
    report("aligning all terms", 0.0)
    weights = Weights(
        window_weight,
        torch.where(kept_d, config.disparity_weight, 0.0).double(),
        torch.where(kept_t, trajectory_weight, 0.0).double(),
        smoothness,
        typical_disparity_scale=typical_scale,
        focal_smoothness=config.focal_smoothness if focal_kind == "per_frame" else 0.0,
    )
    objective = SampledObjective(
        samples,
        optics,
        weights,
        number_columns(
            num_frames,
            samples.window_frames,
            frames_of,
            free_cameras=known_c2w is None,
            focal=focal_kind,
            free_windows=free_windows,
            free_disparity=kept_d,
            free_trajectory=kept_t,
        ),
        gauge,
    )
    variables = replace(variables, log_depth=_best_start_depth(objective, variables))
    if bool((samples.weight > 0).any()):
        view, solve_b = gauss_newton(
            objective,
            objective.view(variables, 0.01),
            num_steps=config.steps_all,
            width_start=0.01,
            width_end=0.001,
        )
    else:
        view, solve_b = objective.view(variables, 0.001), solve_a
    variables = view.variables
    diagnostics["terms_on_samples"] = {k: round(v, 6) for k, v in objective.values(view).items()}
    diagnostics["solve"] = {"points": asdict(solve_a), "all": asdict(solve_b)}
    residual = _window_residual(samples, view.distance) / variables.window_scale.cpu()
    diagnostics["window_residual"] = [round(float(r), 6) if np.isfinite(r) else None for r in residual]
    diagnostics["dropped"] = [
        {
            "window": int(window_numbers[g]),
            "what": "points",
            "why": NO_POINTS if bool(empty[g]) else DISAGREES,
        }
        for g in torch.nonzero(bad)[:, 0].tolist()
    ]
    with_disparity = torch.zeros(num_windows).index_add_(
        0, samples.window.cpu(), samples.disparity_mask.cpu().float().sum(1)
    )
    numbers = window_numbers.tolist()
    diagnostics["dropped"] += [
        {"window": w, "what": "disparity", "why": why}
        for w, why in why_d.items()
        if with_disparity[numbers.index(w)] > 0
    ]
    diagnostics["dropped"] += [{"window": w, "what": "trajectory", "why": why} for w, why in why_t.items()]
    unit = (
        np.ones(num_windows)
        if typical_scale is None
        else typical_scale / variables.disparity_scale.cpu().numpy()
    )
    good = torch.zeros(num_frames, dtype=torch.float64).index_add_(
        0, samples.frame.cpu(), (window_weight[samples.window.cpu()] >= 0.5).double()
    )
    return _Scene(
        variables=variables,
        optics=optics,
        window_weight=window_weight,
        disparity_weight=weights.disparity * torch.from_numpy(unit),
        trajectory_kept=kept_t,
        trajectories=trajectories,
        frame_weight=good,
        diagnostics=diagnostics,
    )


def _start_focal(
    samples: Samples,
    fitted: Tensor,
    good: Tensor,
    known: Tensor | None,
    motion: CameraEvidence | None,
    config: AlignConfig,
    first_rows: Tensor,
    longer: float,
) -> tuple[Tensor, str]:
    """Log focal length of every frame, and how it is solved for: ``fixed``, ``shared`` or ``per_frame``."""
    num_frames = samples.num_frames
    if known is not None:
        return known, "fixed"
    stated = samples.focal[:, 0]
    values = torch.where(stated.isfinite(), stated, fitted)
    usable = values.isfinite() & (good if bool((good & values.isfinite()).any()) else torch.ones_like(good))
    middle = longer
    if motion is not None and bool((motion.confidence > 0).any()):
        trusted = motion.confidence > 0
        middle = float(motion.intrinsics[:, 0, 0][trusted].double().median())
    elif bool(usable.any()):
        middle = float(values[usable].median())
    kind = config.focal
    if kind == "per_frame" and num_frames < 3:
        kind = "shared"
    log_focal = torch.full((num_frames,), float(np.log(middle)), dtype=torch.float64)
    if kind == "per_frame" and bool(usable.any()):
        frames = samples.frame[first_rows].cpu().numpy()[usable.numpy()]
        order = np.argsort(frames, kind="stable")
        line = np.interp(np.arange(num_frames), frames[order], np.log(values[usable].numpy()[order]))
        log_focal = torch.from_numpy(line)
    return log_focal, kind


def _rays(offset: Tensor, log_focal: Tensor, optics: Optics) -> Tensor:
    focal = log_focal.exp().to(offset)
    x = offset[:, 0] / focal[:, None]
    y = offset[:, 1] / (focal * optics.aspect.to(offset))[:, None]
    return torch.stack([x, y, torch.ones_like(x)], 1)


def _onto_cameras(c2w: Tensor, target: Tensor) -> Tensor:
    """Similarity that lays estimated cameras on known ones: rotation from the axes, scale from the centres."""
    rotation = nearest_rotation((target[:, :3, :3] @ c2w[:, :3, :3].mT).mean(0))
    source_centre, target_centre = c2w[:, :3, 3], target[:, :3, 3]
    source_c, target_c = source_centre - source_centre.mean(0), target_centre - target_centre.mean(0)
    scale = torch.sqrt((target_c**2).sum() / (source_c**2).sum().clamp(min=1e-20))
    if not float(scale) > 1e-9:
        scale = torch.ones_like(scale)
    translation = target_centre.mean(0) - scale * rotation @ source_centre.mean(0)
    return similarity(scale, rotation, translation)


def _fix_scale(variables: Variables, gauge: Tensor) -> Variables:
    """Scale the world so that the geometric mean of the window scales is one half, as published."""
    mean = variables.window_scale[gauge.to(variables.window_scale.device)].log().mean()
    return scale_world(variables, torch.exp(np.log(0.5) - mean))


def _start_depth(objective: SampledObjective, variables: Variables) -> Tensor:
    """Weighted mean of the windows' depths; where no window is valid, the median of the frame."""
    view = objective.view(variables, 0.02, num_polish=0)
    means = []
    for part, seen in zip(objective.parts, view.parts, strict=True):
        weight = part.point_weight * (seen.points[:, 2] > 1e-2)
        mass = part.total(weight)
        mean = part.total(weight * seen.points[:, 2].clamp(min=1e-2)) / mass.clamp(min=1e-20)
        means.append(torch.where(mass > 0, mean, torch.nan))
    depth = torch.cat(means)
    known = torch.isfinite(depth)
    typical = masked_median(depth, known)
    overall = typical.nanmedian().nan_to_num(nan=1.0)
    typical = torch.where(typical.isfinite(), typical, overall)
    return torch.where(known, depth, typical[:, None]).clamp(min=1e-2).log()


def _best_start_depth(objective: SampledObjective, variables: Variables) -> Tensor:
    """Of the depths that each window's points and disparity propose, the cheapest.

    Pixels without a valid point carry an arbitrary depth, and 1 / depth of that would wreck the joint stage.
    """
    view = objective.view(variables, 0.01, num_polish=0)
    chosen = []
    for part, seen in zip(objective.parts, view.parts, strict=True):
        aligned, disparity_weight = part.disparity_terms(variables)
        depth = seen.log_depth.exp()
        best, best_cost = depth, torch.full_like(depth, torch.inf)
        for slot in range(part.slots):
            rows = torch.nonzero(part.slot == slot)[:, 0]
            proposals = [(seen.nearest[rows].clamp(1e-2, 1e3), part.point_weight[rows] > 0)]
            if aligned is not None and disparity_weight is not None:
                proposals.append((1 / aligned[rows].clamp(min=2e-2), disparity_weight[rows] > 0))
            for proposal, counts in proposals:
                candidate = depth.clone()
                candidate[part.frame[rows]] = torch.where(counts, proposal, depth[part.frame[rows]])
                value = part.pixel_cost(variables, seen, candidate)
                better = value < best_cost
                best_cost, best = torch.where(better, value, best_cost), torch.where(better, candidate, best)
        chosen.append(best.log())
    return torch.cat(chosen)


def _window_residual(samples: Samples, distance: Tensor) -> Tensor:
    """Median distance of each window's valid points, NaN where it has none; [G] on the CPU."""
    result = torch.full((samples.num_windows,), torch.nan, dtype=torch.float64)
    order = torch.argsort(samples.window, stable=True)
    for window, rows in zip(
        range(samples.num_windows),
        torch.split(order, torch.bincount(samples.window, minlength=samples.num_windows).tolist()),
        strict=True,
    ):
        values = distance[rows][samples.weight[rows] > 0]
        if values.numel():
            result[window] = float(values.median())
    return result


def _usable_disparities(
    scale: Tensor, error: Tensor, share: Tensor, config: AlignConfig
) -> tuple[Tensor, dict[int, str]]:
    """Which windows' disparities take part, and why the others do not."""
    fitted = error.isfinite()
    typical_error = float(error[fitted].median()) if bool(fitted.any()) else 0.0
    typical_scale = float(scale[fitted].median()) if bool(fitted.any()) else 1.0
    why: dict[int, str] = {}
    for window in range(len(scale)):
        if not bool(fitted[window]):
            why[window] = "no pixels to align it with"
        elif float(scale[window]) <= 0:
            why[window] = "scale is not positive"
        elif float(share[window]) < config.min_disparity_share:
            why[window] = f"only {float(share[window]):.0%} of pixels within a factor of 1.25"
        elif config.max_disparity_error is not None:
            if float(error[window]) > config.max_disparity_error * max(typical_error, 1e-3):
                why[window] = "error far above that of other windows"
            elif float(scale[window]) < 0.25 * typical_scale:
                why[window] = "scale far below that of other windows"
    kept = torch.tensor([window not in why for window in range(len(scale))])
    return kept, why


def _usable_trajectories(
    trajectories: Sequence[Trajectory], rpe_rad: Tensor, numbers: Tensor, config: AlignConfig
) -> tuple[Tensor, dict[int, str]]:
    """Which trajectories take part, and why the others do not (by window number)."""
    why: dict[int, str] = {}
    kept = []
    for trajectory, rpe in zip(trajectories, rpe_rad, strict=True):
        if trajectory.window < 0:
            kept.append(True)
            continue
        number = int(numbers[trajectory.window])
        degrees = float(np.degrees(rpe))
        keep = degrees < config.max_trajectory_deg
        if config.force_kept_trajectory is not None:
            keep = number in config.force_kept_trajectory
        if not keep:
            why[number] = f"rotation between neighbours is off by {degrees:.1f} degrees"
        kept.append(keep)
    return torch.tensor(kept, dtype=torch.bool), why


def _merge_scenes(
    samples: Samples,
    component: Tensor,
    scene_of_frame: Tensor,
    parts: Sequence[_Scene],
    agreement: Tensor,
    config: AlignConfig,
) -> Alignment:
    """Put the scenes' results in the places of their frames and windows."""
    num_frames, num_windows = samples.num_frames, samples.num_windows
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(num_frames, 1, 1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    similarity_w = torch.eye(4, dtype=torch.float64).repeat(num_windows, 1, 1)
    window_weight = torch.ones(num_windows, dtype=torch.float64)
    disparity = torch.zeros(num_windows, 3, dtype=torch.float64)
    reliable = torch.zeros(num_frames, dtype=torch.bool)
    track_windows, tracks = [], []
    metric = bool(samples.metric.all())
    for scene, part in enumerate(parts):
        windows = torch.nonzero(component == scene)[:, 0]
        frames = torch.nonzero(scene_of_frame == scene)[:, 0]
        variables = part.variables
        unit = samples.point_unit[windows]
        if metric:
            # Metric windows: the world takes the unit of the windows on the average.
            factor = torch.exp(-(variables.window_scale.cpu() / unit).log().median())
            variables = scale_world(variables, factor)
            part = replace(part, disparity_weight=part.disparity_weight * float(factor))
        focal = variables.log_focal.exp().cpu()
        principal = part.optics.principal_point
        intrinsics[frames] = intrinsics_matrix(
            focal, focal * part.optics.aspect, principal[:, 0], principal[:, 1]
        )
        c2w[frames] = rigid(variables.rotation, variables.centre).cpu()
        similarity_w[windows] = similarity(
            variables.window_scale.cpu() / unit,
            variables.window_rotation.cpu(),
            variables.window_translation.cpu(),
        )
        window_weight[windows] = part.window_weight
        disparity[windows, 0] = variables.disparity_scale.cpu()
        disparity[windows, 1] = variables.disparity_shift.cpu()
        disparity[windows, 2] = part.disparity_weight
        reliable[frames] = part.frame_weight > 0
        for index, trajectory in enumerate(part.trajectories):
            track_windows.append(int(windows[trajectory.window]) if trajectory.window >= 0 else -1)
            tracks.append(
                similarity(
                    variables.trajectory_scale[index],
                    variables.trajectory_rotation[index],
                    variables.trajectory_translation[index],
                ).cpu()
            )
    return Alignment(
        intrinsics=intrinsics,
        c2w=c2w,
        window_similarity=similarity_w,
        window_weight=window_weight,
        disparity_scale=disparity[:, 0],
        disparity_shift=disparity[:, 1],
        disparity_weight=disparity[:, 2],
        point_unit=samples.point_unit,
        trajectory_window=torch.tensor(track_windows, dtype=torch.long),
        trajectory_similarity=torch.stack(tracks) if tracks else torch.zeros(0, 4, 4, dtype=torch.float64),
        window_frames=samples.window_frames,
        reliable=reliable,
        scene=scene_of_frame,
        point_frame="window",
        scale_kind="metric" if metric else "scale",
        size=samples.size,
        config=config,
        diagnostics={
            "scenes": [part.diagnostics for part in parts],
            "dropped": [entry for part in parts for entry in part.diagnostics["dropped"]],
            "num_unreliable_frames": int((~reliable).sum()),
        },
    )


def objective_on_all_pixels(
    alignment: Alignment,
    predictions: Sequence[Prediction],
    depth_of: Callable[[int], Float[Tensor, "H W"]],
) -> ObjectiveValues:
    """Every term of an alignment's objective on all pixels, window by window.

    Args:
        depth_of: frame -> dense depth.
    Raises:
        ValueError: the alignment has no poses.
    """
    if alignment.c2w is None or alignment.point_frame == "camera":
        raise ValueError("expected an alignment with poses of its own, got one without")
    config = alignment.config
    scale, rotation, translation = similarity_parts(alignment.window_similarity)
    track_scale, track_rotation, track_translation = similarity_parts(alignment.trajectory_similarity)
    variables = Variables(
        rotation=alignment.c2w[:, :3, :3],
        centre=alignment.c2w[:, :3, 3],
        log_focal=alignment.intrinsics[:, 0, 0].log(),
        window_scale=scale,
        window_rotation=rotation,
        window_translation=translation,
        disparity_scale=alignment.disparity_scale,
        disparity_shift=alignment.disparity_shift,
        trajectory_scale=track_scale,
        trajectory_rotation=track_rotation,
        trajectory_translation=track_translation,
        log_depth=torch.zeros(alignment.num_frames, 1),
    )
    per_frame = CALIBRATION_FRAMES / alignment.num_frames if config.average_per_frame else 1.0
    dropped = {d["window"] for d in alignment.diagnostics["dropped"] if d["what"] == "trajectory"}
    kept = [int(w) for w in alignment.trajectory_window if int(w) >= 0 and int(w) not in dropped]
    return evaluate_objective(
        predictions,
        variables,
        depth_of,
        Optics(alignment.intrinsics[:, :2, 2], alignment.intrinsics[:, 1, 1] / alignment.intrinsics[:, 0, 0]),
        disparity_weight=alignment.disparity_weight,
        trajectory_weight=dict.fromkeys(kept, config.trajectory_weight * per_frame),
        smoothness_weight=config.smoothness_weight * per_frame,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
        window_weight=alignment.window_weight,
        mask_sky=config.mask_sky,
    )
