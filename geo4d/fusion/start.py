"""One scene before its first solve: what is given, and starting values of all unknowns."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.fusion.alignment import AlignConfig, CameraEvidence
from geo4d.fusion.objective import SampledObjective
from geo4d.fusion.pixel_terms import Optics
from geo4d.fusion.samples import Samples, Trajectory
from geo4d.fusion.start_cameras import choose_cameras, window_poses
from geo4d.fusion.start_focal import FocalFit, fit_focals, masked_median
from geo4d.fusion.variables import Variables, scale_world
from geo4d.geometry.poses import nearest_rotation, similarity, similarity_parts

FocalKind = Literal["fixed", "shared", "per_frame"]


@dataclass(frozen=True)
class Scene:
    """Windows that hang together, and what is known about them (G windows, N frames).

    Attributes:
        samples: of these windows at these frames.
        window_numbers: numbers of the windows in the video.
        world: similarity of each window, from its points to the world of the registration.
        agreement: least median distance to an overlapping window, in depth ranges; infinite where nothing overlaps.
        bad: windows that hardly count, because they disagree with those around them or are empty.
        empty: windows with too few valid points to be placed; held fixed.
        known_intrinsics, known_c2w: held fixed.
        motion: cameras from another source.
        scratch: folder for what is too large to be held in memory; None takes the system's temporary one.
    """

    samples: Samples
    window_numbers: Int[Tensor, " G"]
    world: Float[Tensor, "G 4 4"]
    agreement: Float[Tensor, " G"]
    bad: Bool[Tensor, " G"]
    empty: Bool[Tensor, " G"]
    known_intrinsics: Float[Tensor, "N 3 3"] | None = None
    known_c2w: Float[Tensor, "N 4 4"] | None = None
    motion: CameraEvidence | None = None
    scratch: Path | None = None


@dataclass(frozen=True)
class Start:
    """Where the solve begins.

    Attributes:
        samples: those of the scene, with camera evidence as one more trajectory.
        optics: principal point and aspect of every frame.
        focal_kind: how the focal length is solved for.
        variables: starting values; log depths are 0 until ``start_depth`` and trajectories are not aligned yet.
        gauge: [G] windows whose mean log scale is the unit of the world; None where known cameras give it.
    """

    samples: Samples
    optics: Optics
    focal_kind: FocalKind
    variables: Variables
    gauge: Bool[Tensor, " G"] | None


def start_scene(scene: Scene, config: AlignConfig) -> Start:
    """Focal length from each window's first frame, then cameras from points and ray maps."""
    samples = scene.samples
    optics, known_log_focal = _optics(samples, config, scene.known_intrinsics)
    first = _first_observations(samples)
    fits = _fit_first_frames(samples, first, optics, config)
    log_focal, focal_kind = _start_focal(scene, first, fits.focal.cpu(), known_log_focal, config)
    c2w, world = _start_cameras(scene, optics, log_focal, fits, config)
    if scene.motion is not None:
        samples = _with_evidence(samples, scene.motion, config.evidence_weight)
    variables = _start_variables(samples, c2w, world, log_focal)
    gauge = _gauge(scene, config)
    if gauge is not None:
        variables = _fix_scale(variables, gauge)
    return Start(samples, optics, focal_kind, variables, gauge)


# Focal length.


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
    aspect = config.pixel_aspect
    if aspect is None:  # a predictor that states unequal focal lengths fixes their ratio
        stated = samples.focal[:, 1] / samples.focal[:, 0]
        aspect = float(stated[stated.isfinite()].median()) if bool(stated.isfinite().any()) else 1.0
    return Optics(principal, torch.full((samples.num_frames,), aspect, dtype=torch.float64)), None


def _first_observations(samples: Samples) -> Tensor:
    """Observation of each window's first frame, [G]; -1 where that frame belongs to another scene."""
    rows = torch.full((samples.num_windows,), -1, device=samples.points.device)
    is_first = samples.local == 0
    rows[samples.window[is_first]] = torch.nonzero(is_first)[:, 0]
    return rows


def _offset(samples: Samples, optics: Optics) -> Tensor:
    """Sampled pixels from the principal point, [N, 2, P]."""
    return samples.pixels - optics.principal_point[..., None].to(samples.pixels)


def _fit_first_frames(samples: Samples, first: Tensor, optics: Optics, config: AlignConfig) -> FocalFit:
    """Windows without their first frame have no points in that frame's camera, hence no fit."""
    offset = _offset(samples, optics)[samples.frame[first]]
    offset[:, 1] /= optics.aspect.to(samples.pixels)[samples.frame[first], None]
    return fit_focals(
        samples.points[first],
        offset,
        torch.where((first >= 0)[:, None], samples.weight[first], 0.0),
        samples.z_offset.to(samples.points.device),
        limits=config.focal_limits(samples.size),
    )


def _start_focal(
    scene: Scene, first: Tensor, fitted: Tensor, known: Tensor | None, config: AlignConfig
) -> tuple[Tensor, FocalKind]:
    """Log focal length of every frame, [N], and how it is solved for."""
    if known is not None:
        return known, "fixed"
    samples, motion, good = scene.samples, scene.motion, ~scene.bad
    if motion is not None and motion.focal_known is not None and bool(motion.focal_known.all()):
        return motion.intrinsics[:, 0, 0].double().cpu().log(), "fixed"
    if motion is not None and motion.zooms is not None and bool(motion.zooms.any()):
        return _continued(
            motion.intrinsics[:, 0, 0].double().cpu().log(), motion.confidence.cpu() > 0
        ), "shared"
    num_frames = samples.num_frames
    stated = samples.focal[:, 0]
    values = torch.where(stated.isfinite(), stated, fitted)
    usable = values.isfinite() & (good if bool((good & values.isfinite()).any()) else torch.ones_like(good))
    middle = float(max(samples.size))
    if motion is not None and bool((motion.confidence > 0).any()):
        trusted = motion.confidence > 0
        middle = float(motion.intrinsics[:, 0, 0][trusted].double().median())
    elif bool(usable.any()):
        middle = float(values[usable].median())
    kind: FocalKind = "shared" if num_frames < 3 else config.focal
    log_focal = torch.full((num_frames,), float(np.log(middle)), dtype=torch.float64)
    if kind == "per_frame" and bool(usable.any()):
        frames = samples.frame[first].cpu().numpy()[usable.numpy()]
        order = np.argsort(frames, kind="stable")
        line = np.interp(np.arange(num_frames), frames[order], np.log(values[usable].numpy()[order]))
        log_focal = torch.from_numpy(line)
    return log_focal, kind


def _continued(values: Tensor, known: Tensor) -> Tensor:
    """Values of all frames, [N], from those that are known: on the way between two, and as the nearest at the ends."""
    rows = known.nonzero()[:, 0].numpy()
    if not len(rows):
        return values
    return torch.from_numpy(np.interp(np.arange(len(values)), rows, values[known].numpy()))


# Cameras.


def _start_cameras(
    scene: Scene, optics: Optics, log_focal: Tensor, fits: FocalFit, config: AlignConfig
) -> tuple[Tensor, Tensor]:
    """Camera to world [N, 4, 4] and window to world [G, 4, 4]; known cameras bring their own world."""
    samples, device = scene.samples, scene.samples.points.device
    rays = _rays(_offset(samples, optics), log_focal, optics)
    shift = torch.where(torch.isfinite(fits.shift), fits.shift, 0.0).cpu()
    poses = window_poses(samples, rays, shift, samples.trajectories)
    window_weight = config.window_weight(scene.bad)
    c2w = choose_cameras(samples, rays, scene.world, poses, shift, window_weight, samples.trajectories)
    world = scene.world.to(device)
    if scene.known_c2w is None:
        return c2w, world
    known = scene.known_c2w.double().to(device)
    return known, _onto_cameras(c2w, known) @ world


def _rays(offset: Tensor, log_focal: Tensor, optics: Optics) -> Tensor:
    """Viewing rays with z = 1, [N, 3, P]."""
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


def _with_evidence(samples: Samples, motion: CameraEvidence, weight: float) -> Samples:
    evidence = Trajectory(
        frames=torch.arange(samples.num_frames),
        c2w=motion.c2w.double().cpu(),
        weight=weight * motion.confidence.double().cpu(),
        window=-1,
    )
    return replace(samples, trajectories=(*samples.trajectories, evidence))


# Variables and the unit of the world.


def _start_variables(samples: Samples, c2w: Tensor, world: Tensor, log_focal: Tensor) -> Variables:
    """Cameras and windows in place; disparities and trajectories as they are, depths at 1."""
    device = samples.points.device
    num_windows, num_tracks = samples.num_windows, len(samples.trajectories)
    scale, rotation, translation = similarity_parts(world)
    return Variables(
        rotation=c2w[:, :3, :3],
        centre=c2w[:, :3, 3],
        log_focal=log_focal.to(device),
        window_scale=scale,
        window_rotation=rotation,
        window_translation=translation,
        disparity_scale=torch.ones(num_windows, dtype=torch.float64, device=device),
        disparity_shift=torch.zeros(num_windows, dtype=torch.float64, device=device),
        trajectory_scale=torch.ones(num_tracks, dtype=torch.float64, device=device),
        trajectory_rotation=torch.eye(3, dtype=torch.float64, device=device).repeat(num_tracks, 1, 1),
        trajectory_translation=torch.zeros(num_tracks, 3, dtype=torch.float64, device=device),
        log_depth=torch.zeros(samples.pixels.shape[0], samples.pixels.shape[2], device=device),
    )


def _gauge(scene: Scene, config: AlignConfig) -> Tensor | None:
    """The good windows, or all when none is good; all in the published form."""
    if scene.known_c2w is not None:
        return None
    if not config.disparity_in_window_unit or bool(scene.bad.all()):
        return torch.ones_like(scene.bad)
    return ~scene.bad


def _fix_scale(variables: Variables, gauge: Tensor) -> Variables:
    """Scale the world so that the geometric mean of the window scales is one half, as published."""
    mean = variables.window_scale[gauge.to(variables.window_scale.device)].log().mean()
    return scale_world(variables, torch.exp(np.log(0.5) - mean))


# Depths.


def start_depth(objective: SampledObjective, variables: Variables) -> Float[Tensor, "N P"]:
    """Log depth of the sampled pixels: weighted mean of the windows' depths; where no window is valid, the median of
    the frame."""
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


def best_start_depth(objective: SampledObjective, variables: Variables) -> Float[Tensor, "N P"]:
    """Of the log depths that each window's points and disparity propose, the cheapest.

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
