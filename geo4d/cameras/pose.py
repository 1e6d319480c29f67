"""World poses for depth that has none: per-frame depth maps of any predictor, or a whole reconstruction, re-posed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.published import published_cameras, windows_of
from geo4d.cameras.published_refine import refine_published
from geo4d.cameras.solve import solve_with_depth
from geo4d.cameras.types import CameraSolveConfig, MotionCameras
from geo4d.cameras.with_depth import sample_log_depth
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.poses import inverse
from geo4d.tracks.sources import TrackMaker, followed
from geo4d.tracks.types import Tracks
from geo4d.types import LazyFrames, Reconstruction

Objective = Literal["depth", "published", "published-refined"]
TrajectoryUnit = Literal["metres", "unknown"]

TRACK_NOISE = 0.1
"""Least noise of a tracked position that is reckoned with, pixels."""

RELIABLE = 0.2
"""Least confidence of a pose that counts as reliable."""


def pose_frames(
    frames: Iterable[Float[Tensor, "H W 3"]],
    depth: Iterable[Float[Tensor, "h w"]],
    intrinsics: Float[Tensor, "*t 3 3"],
    *,
    scene: Sequence[int] | None = None,
    masks: Iterable[Bool[Tensor, "H W"]] | None = None,
    per_frame_scale: bool = False,
    tracker: TrackMaker = followed,
    config: CameraSolveConfig | None = None,
    scratch: Path | None = None,
) -> MotionCameras:
    """Cameras of frames whose depth is known: track, then solve.

    Args:
        frames: RGB in [0, 1], all of one size; 500 to 640 pixels wide is a good size.
        depth: z-depth of every frame, in order, of any one size; read in a second pass, one at a time.
        intrinsics: pixels of ``frames``, [3, 3] or one per frame.
        scene: scene number of every frame; worlds never reach across scenes.
        masks: True on moving things, one per frame.
        per_frame_scale: the depth of every frame has a scale of its own; see ``MotionCameras.depth_scale``.
        tracker: makes the tracks; see ``tracks.sources``.
        config: the solver.
        scratch: folder for work files of long videos; None takes the system's temporary one.
    """
    tracks = track_frames(frames, masks, scene, tracker)
    return solve_with_depth(
        tracks, depth, intrinsics, per_frame_scale=per_frame_scale, config=config, scratch=scratch
    )


def track_frames(
    frames: Iterable[Float[Tensor, "H W 3"]],
    masks: Iterable[Bool[Tensor, "H W"]] | None,
    scene: Sequence[int] | None,
    tracker: TrackMaker,
) -> Tracks:
    """Tracks that end where a scene does.

    Args:
        frames: RGB in [0, 1], all of one size.
        masks: True on moving things, one per frame.
        scene: scene number of every frame.
    """
    tracks = tracker(frames, masks)
    if scene is None:
        return tracks
    if len(scene) != tracks.num_frames:
        raise ValueError(f"expected {tracks.num_frames} scene numbers, got {len(scene)}")
    numbers = torch.as_tensor(np.asarray(scene))
    starts = tracks.starts_shot.clone()
    starts[1:] |= numbers[1:] != numbers[:-1]
    return replace(tracks, starts_shot=starts)


def fit_trajectory_scale(
    tracks: Tracks,
    log_depth: Float[Tensor, " O"],
    intrinsics: Float[Tensor, "T 3 3"],
    c2w: Float[Tensor, "T 4 4"],
    frames: Bool[Tensor, " T"] | None = None,
) -> float:
    """The factor that takes the translations of a known trajectory to the unit of the depth maps.

    Every track seen by two frames of a shot gives one estimate: the point lifted from the first, turned and moved by
    factor times the known translation, must lie on the ray of the second. The start is their weighted median; from
    there the squared distances to the rays are made small, without the tracks that miss theirs by more than three
    times the noise of all. What moves, and what slides along the edge of something near, goes to one side: it pulls
    even a median.

    Args:
        frames: True for those that count; None takes all.
    Raises:
        ValueError: the trajectory or the tracks have no parallax to measure.
    """
    shot = tracks.starts_shot.cumsum(0)[tracks.frame]
    other = (tracks.track[1:] != tracks.track[:-1]) | (shot[1:] != shot[:-1])
    first = torch.cat([torch.ones(1, dtype=torch.bool), other])  # of a track in a shot
    row = torch.where(first, torch.arange(len(first)), 0).cummax(0).values
    usable = ~first & torch.isfinite(log_depth[row])
    if frames is not None:
        usable &= frames[tracks.frame]
    later, earlier = usable.nonzero()[:, 0], row[usable]
    rays = torch.cat([tracks.xy.double(), torch.ones(len(row), 1, dtype=torch.float64)], 1)
    rays = (torch.linalg.inv(intrinsics.double())[tracks.frame] @ rays[..., None])[..., 0]
    relative = inverse(c2w.double())[tracks.frame[later]] @ c2w.double()[tracks.frame[earlier]]
    point = rays[earlier] * log_depth[earlier].exp()[:, None]
    turned = (relative[:, :3, :3] @ point[..., None])[..., 0]
    # (turned + s t) x ray = 0, in angles
    ray = rays[later] / rays[later].norm(dim=1, keepdim=True)
    distance = turned.norm(dim=1, keepdim=True).clamp_min(1e-12)
    a = torch.linalg.cross(relative[:, :3, 3], ray) / distance
    b = -torch.linalg.cross(turned, ray) / distance
    weight = a.norm(dim=1)
    estimate = (a * b).sum(1) / weight.square().clamp_min(1e-30)
    good = (estimate > 0) & (weight > 1e-12)
    if int(good.sum()) < 12:
        raise ValueError(
            "expected a trajectory that moves past tracked points, got none; its scale cannot be found"
        )
    order = estimate[good].argsort()
    total = weight[good][order].cumsum(0)
    middle = int(torch.searchsorted(total, total[-1] / 2))
    least = TRACK_NOISE / float(intrinsics[:, 0, 0].median())
    return _least_squares_of_most(a[good], b[good], float(estimate[good][order][middle]), least)


def _least_squares_of_most(
    a: Float[Tensor, "O 3"], b: Float[Tensor, "O 3"], start: float, least_noise: float
) -> float:
    """The factor for which a * factor - b is small, by Tukey's weights: nothing beyond three times the noise counts."""
    factor = start
    for _ in range(50):
        error = (a * factor - b).norm(dim=1)
        noise = max(1.4826 * float(error.median()), least_noise)
        weight = (1 - (error / (3 * noise)).square()).clamp_min(0).square()
        before = factor
        factor = float((weight * (a * b).sum(1)).sum() / (weight * a.square().sum(1)).sum())
        if abs(factor / before - 1) < 1e-6:
            break
    return factor


def pose_reconstruction(
    reconstruction: Reconstruction,
    *,
    frames: Iterable[Float[Tensor, "H W 3"]] | None = None,
    masks: Iterable[Bool[Tensor, "H W"]] | None = None,
    intrinsics: Float[Tensor, "*t 3 3"] | None = None,
    trajectory: Float[Tensor, "T 4 4"] | None = None,
    trajectory_unit: TrajectoryUnit = "metres",
    per_frame_scale: bool = False,
    tracker: TrackMaker = followed,
    objective: Objective = "depth",
    depth_weight: float = 0.0,
    config: CameraSolveConfig | None = None,
    scratch: Path | None = None,
) -> Reconstruction:
    """The same depth with new cameras.

    Args:
        reconstruction: with colour, unless ``frames`` are given.
        frames: RGB in [0, 1] of any size, one per frame of the reconstruction; None takes its own colour.
        masks: True on moving things, at the size of ``frames``; None takes the reconstruction's ``dynamic`` if any.
        intrinsics: pixels of the maps; None keeps those of the reconstruction (their focal length is refined).
        trajectory: known camera to world of every frame, taken as it is.
        trajectory_unit: ``metres``: the depth of each scene is scaled to it, and the result is metric. ``unknown``: the
            trajectory is scaled to the depth.
        per_frame_scale: let every frame's depth change by a factor of its own (single-image predictors).
        tracker: makes the tracks; see ``tracks.sources``.
        objective: ``depth``: points are unknowns, depth is measured (``solve_with_depth``). ``published``: that of
            GeometryCrafter's authors, without points or depth term; all depth maps are held in memory.
            ``published-refined``: then also their stage in which points are unknowns.
        depth_weight: of the depths in that stage, >= 0; see ``published_refine.refine_published``.
        config: see ``CameraSolveConfig``.
        scratch: folder for work files of long videos; None takes the system's temporary one.
    Returns:
        with ``c2w``, ``intrinsics``, ``reliable`` and ``scene`` replaced, and what the tracks said in ``diagnostics``.
    Raises:
        ValueError: no colour, arrays of the wrong length, or a trajectory that moves past no tracked point.
    """
    num_frames, size = reconstruction.num_frames, reconstruction.size
    given = intrinsics is not None
    K = (
        torch.from_numpy(np.asarray(reconstruction.intrinsics)).double()
        if intrinsics is None
        else intrinsics.double()
    )
    K = K.expand(num_frames, 3, 3)
    if frames is None:
        if reconstruction.rgb is None:
            raise ValueError("expected a reconstruction with colour or frames, got neither")
        rgb = reconstruction.rgb
        frames = (torch.from_numpy(np.float32(rgb[t])) for t in range(num_frames))
    if masks is None and reconstruction.dynamic is not None:
        masks = _moving_masks(reconstruction)
    scene = (
        np.zeros(num_frames, np.int64) if reconstruction.scene is None else np.asarray(reconstruction.scene)
    )
    tracks = track_frames(frames, masks, scene.tolist(), tracker)
    if tracks.num_frames != num_frames:
        raise ValueError(f"expected {num_frames} frames, got {tracks.num_frames}")
    tracked_K = resize_intrinsics(K, size, tracks.size)
    if trajectory is not None:
        if len(trajectory) != num_frames:
            raise ValueError(f"expected a trajectory of {num_frames} poses, got {len(trajectory)}")
        if trajectory_unit == "metres":
            return _along_metres(reconstruction, tracks, tracked_K, K, trajectory)
        return _along(reconstruction, tracks, tracked_K, K, trajectory)
    if objective != "depth":
        return _by_published(reconstruction, tracks, tracked_K, objective, depth_weight)
    config = config or CameraSolveConfig()
    if given:
        config = replace(config, depth_focal_spread=0.0)
    motion = solve_with_depth(
        tracks,
        _finite_depth(reconstruction),
        tracked_K,
        per_frame_scale=per_frame_scale,
        config=config,
        scratch=scratch,
    )
    return _with_cameras(reconstruction, motion, per_frame_scale)


def _along(
    reconstruction: Reconstruction,
    tracks: Tracks,
    tracked_K: Float[Tensor, "T 3 3"],
    K: Float[Tensor, "T 3 3"],
    trajectory: Float[Tensor, "N 4 4"],
) -> Reconstruction:
    """On a known trajectory of unknown unit, which is scaled to the depth."""
    log_depth = sample_log_depth(tracks, _finite_depth(reconstruction))
    factor = fit_trajectory_scale(tracks, log_depth, tracked_K, trajectory)
    c2w = trajectory.double().clone()
    c2w[:, :3, 3] *= factor
    pose = {"trajectory_scale": factor}
    return replace(
        reconstruction,
        c2w=c2w.numpy(),
        intrinsics=K.numpy(),
        diagnostics={**reconstruction.diagnostics, "pose": pose},
    )


def _along_metres(
    reconstruction: Reconstruction,
    tracks: Tracks,
    tracked_K: Float[Tensor, "T 3 3"],
    K: Float[Tensor, "T 3 3"],
    trajectory: Float[Tensor, "N 4 4"],
) -> Reconstruction:
    """On a known trajectory in metres, to which the depth of every scene is scaled by a factor of its own."""
    log_depth = sample_log_depth(tracks, _finite_depth(reconstruction))
    scene = np.zeros(len(trajectory), np.int64) if reconstruction.scene is None else reconstruction.scene
    numbers = torch.from_numpy(np.asarray(scene, np.int64))
    metres = torch.ones(len(trajectory), dtype=torch.float64)
    for number in numbers.unique():
        inside = numbers == number
        try:
            factor = fit_trajectory_scale(tracks, log_depth, tracked_K, trajectory, inside)
        except ValueError as error:
            raise ValueError(f"the scale of scene {int(number)} is not determined: {error}") from error
        metres[inside] = 1 / factor
    pose = {"metres_per_unit": [float(metres[numbers == number][0]) for number in numbers.unique()]}
    return replace(
        reconstruction,
        depth=_scaled_depth(reconstruction, metres.float()),
        c2w=trajectory.double().numpy(),
        intrinsics=K.numpy(),
        scale_kind="metric",
        diagnostics={**reconstruction.diagnostics, "pose": pose},
    )


def _by_published(
    reconstruction: Reconstruction,
    tracks: Tracks,
    tracked_K: Float[Tensor, "T 3 3"],
    objective: Objective,
    depth_weight: float,
) -> Reconstruction:
    """By the published objective, refined or not; the first camera becomes the identity."""
    depth = torch.stack(list(_finite_depth(reconstruction)))
    windows = windows_of(tracks, depth)
    found, curve = published_cameras(windows, tracked_K, tracks.size)
    pose: dict[str, object] = {"objective": objective, "loss": [round(float(curve[k]), 8) for k in (0, -1)]}
    if objective == "published-refined":
        found, report = refine_published(found, windows, depth_weight=depth_weight)
        pose["refined_loss"] = [round(cost, 8) for cost in (report.cost_start, report.cost_end)]
    c2w = found.c2w().double()
    height, width = reconstruction.size
    K = torch.eye(3, dtype=torch.float64).repeat(len(c2w), 1, 1)
    focal = torch.tensor([width, height]) / 2 / torch.tan(found.fov.double() / 2)
    K[:, [0, 1], [0, 1]] = focal
    K[:, :2, 2] = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    return replace(
        reconstruction,
        c2w=(inverse(c2w[:1]) @ c2w).numpy(),
        intrinsics=K.numpy(),
        diagnostics={**reconstruction.diagnostics, "pose": pose},
    )


def _with_cameras(
    reconstruction: Reconstruction, motion: MotionCameras, per_frame_scale: bool
) -> Reconstruction:
    """With solved cameras, and what the tracks said."""
    shots = np.zeros(reconstruction.num_frames, np.int64)
    for number, shot in enumerate(motion.shots):
        shots[shot.start : shot.stop] = number
    reliable = motion.confidence.numpy() >= RELIABLE
    if reconstruction.reliable is not None:
        reliable &= np.asarray(reconstruction.reliable)
    depth, scale = reconstruction.depth, motion.depth_scale
    if per_frame_scale and scale is not None:
        depth = _scaled_depth(reconstruction, scale)
    pose = {
        "shots": [{k: v for k, v in asdict(s).items() if k != "starts"} for s in motion.shots],
        "confidence": [round(float(c), 4) for c in motion.confidence],
    }
    return replace(
        reconstruction,
        depth=depth,
        c2w=motion.c2w.numpy(),
        intrinsics=resize_intrinsics(motion.intrinsics, motion.size, reconstruction.size).numpy(),
        reliable=reliable,
        scene=shots,
        diagnostics={**reconstruction.diagnostics, "pose": pose},
    )


def _moving_masks(reconstruction: Reconstruction) -> Iterator[Bool[Tensor, "H W"]]:
    assert reconstruction.dynamic is not None
    for t in range(reconstruction.num_frames):
        yield torch.from_numpy(np.nan_to_num(np.float32(reconstruction.dynamic[t])) > 0.5)


def _finite_depth(reconstruction: Reconstruction) -> Iterator[Float[Tensor, "H W"]]:
    """Depth frame by frame; NaN where unknown and in the sky."""
    for t in range(reconstruction.num_frames):
        depth = torch.from_numpy(np.float32(reconstruction.depth[t]))
        yield torch.where(torch.isfinite(depth), depth, torch.nan)


def _scaled_depth(reconstruction: Reconstruction, scale: Float[Tensor, " T"]) -> LazyFrames:
    depth, factors = reconstruction.depth, scale.numpy()
    return LazyFrames(depth.shape, np.dtype(np.float32), lambda t: np.float32(depth[t]) * factors[t])
