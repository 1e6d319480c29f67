"""New cameras for a result on disk: read, solve, write a new result. The old one is left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from geo4d.cameras.pose import Objective, TrajectoryUnit, pose_reconstruction
from geo4d.config import Precision, check_intrinsics
from geo4d.errors import InputError
from geo4d.evidence.mask_finders import MaskFinder, refine_masks
from geo4d.evidence.masks import MaskFormat, grow, read_masks
from geo4d.formats.files import existing_folder
from geo4d.formats.trajectories import load_trajectory
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.results.manifest import read_manifest
from geo4d.results.reader import load_result
from geo4d.results.source import open_source
from geo4d.results.workspace import Workspace
from geo4d.results.writer import StoreWriter
from geo4d.run.frame_poses import FramePoses, frame_poses
from geo4d.tracks.sources import TrackMaker, followed
from geo4d.tracks.types import TRACKING_SIZE
from geo4d.types import FrameMaps, Reconstruction
from geo4d.video.io import fit_size


def repose(
    result: str | Path,
    output: str | Path,
    *,
    mask: str | Path | None = None,
    mask_format: MaskFormat = "bright",
    mask_radius: float = 0.005,
    mask_finder: MaskFinder | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    trajectory: str | Path | None = None,
    trajectory_unit: TrajectoryUnit = "metres",
    time_offset: float = 0.0,
    per_frame_scale: bool = False,
    tracker: TrackMaker = followed,
    objective: Objective = "depth",
    depth_weight: float = 0.0,
    overwrite: bool = False,
) -> Reconstruction:
    """Solve the cameras of a result anew and write it as a new result.

    Args:
        result: folder of a result.
        output: new folder.
        mask: video or folder of pictures, one frame per frame of the source or of the result.
        mask_format: what it holds; see ``evidence.masks.read_masks``.
        mask_radius: how far masks are grown, share of the picture's diagonal.
        mask_finder: redraws the masks (of ``mask``, or of the result) from the pictures, before they are grown.
        intrinsics: known fx fy cx cy in pixels of the source as it is shown (upright, square pixels), pixel centres at
            +0.5.
        trajectory: known camera to world: TUM, KITTI poses or EuRoC csv; see ``formats.trajectories``. Matched to the
            frames by their times (KITTI: one row a frame), and taken as it is.
        trajectory_unit: ``metres`` makes the result metric; ``unknown`` scales the trajectory to the depth.
        time_offset: seconds to add to the times of the trajectory.
        per_frame_scale: let every frame's depth change by a factor of its own.
        tracker: makes the tracks; see ``tracks.sources``.
        objective, depth_weight: see ``pose_reconstruction``.
        overwrite: replace an existing output.
    Raises:
        InputError: the mask or the trajectory does not fit the result, the source of the result has changed since, or
            there are no masks or no pictures for ``mask_finder``.
        OutputError: no result there, or the output exists.
    """
    before = load_result(result)
    manifest = read_manifest(Path(result))
    source_size = _source_size(manifest)
    frames = list(before.source_frames)
    known: Tensor | None = None
    if intrinsics is not None:
        check_intrinsics(intrinsics)
        fx, fy, cx, cy = intrinsics
        K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
        known = resize_intrinsics(K, source_size, before.size)
    given: FramePoses | None = None
    if trajectory is not None:
        source = manifest["source"].get("path")
        given = frame_poses(
            load_trajectory(trajectory),
            np.asarray(before.times_s, np.float64),
            np.asarray(before.source_frames, np.int64),
            None,
            None if source is None else Path(source),
            time_offset,
        )
        given.require_all()
    pictures = _pictures(manifest["source"], Path(result), frames)
    size = before.size if pictures is None else fit_size(source_size, TRACKING_SIZE)
    masks: Iterator[Tensor] | None = None
    if mask is not None:
        masks = iter(read_masks(mask, [int(f) for f in frames], size, mask_format))
    elif before.dynamic is not None:
        masks = _resized_moving(before, size)
    if mask_finder is not None:
        seen = _pictures(manifest["source"], Path(result), frames) or _stored_colour(before)
        masks = _redrawn(seen, masks, mask_finder)
    if mask is not None and masks is not None:
        radius = mask_radius * float(np.hypot(*size))
        masks = (grow(m, radius) for m in masks)
    after = pose_reconstruction(
        before,
        frames=pictures,
        masks=masks,
        intrinsics=known,
        trajectory=None if given is None else given.c2w,
        trajectory_unit=trajectory_unit,
        per_frame_scale=per_frame_scale,
        tracker=tracker,
        objective=objective,
        depth_weight=depth_weight,
        scratch=existing_folder(Path(output)),
    )
    if mask_finder is not None:
        posed = {**after.diagnostics["pose"], "masks_redrawn_by": mask_finder.name}
        after = replace(after, diagnostics={**after.diagnostics, "pose": posed})
    if given is not None and trajectory_unit == "metres":
        after = replace(after, diagnostics={**after.diagnostics, "metric": _metric(after, given)})
    elif "metric" in after.diagnostics and after.diagnostics["metric"].get("use") == "poses":
        # the old poses are gone, but the unit of the depth stays
        after = replace(
            after,
            diagnostics={**after.diagnostics, "metric": {**after.diagnostics["metric"], "use": "scale"}},
        )
    return _write(after, manifest, Path(output), overwrite, keeps_world=given is not None)


def _metric(after: Reconstruction, given: FramePoses) -> dict[str, Any]:
    """What the metres come from, as ``run.metric.Metric.details``."""
    factors = after.diagnostics["pose"]["metres_per_unit"]
    scenes = [{"scene": n, "metres_per_unit": factor} for n, factor in enumerate(factors)]
    statement = f"metric: poses are those of {given.statement}; the depth is scaled to them by tracked points"
    return {
        "by": "trajectory",
        "use": "poses",
        "source": given.source,
        "scenes": scenes,
        "statement": statement,
    }


def stated_size(result: str | Path) -> tuple[int, int]:
    """(height, width) of the source of a result, upright, square pixels.

    Raises:
        OutputError: no result there.
    """
    return _source_size(read_manifest(Path(result)))


def _source_size(manifest: dict) -> tuple[int, int]:
    stated = manifest["source"].get("size", manifest["size"])
    return stated["height"], stated["width"]


def _pictures(source: dict, result: Path, frames: list) -> Iterator[Tensor] | None:
    """The frames of the source at tracking size; None when it is gone and the stored colour must do."""
    video = open_source(source, result, int(max(frames)) + 1)
    if video is None:
        return None

    def read() -> Iterator[Tensor]:
        with video:
            size = fit_size(video.size, TRACKING_SIZE)
            for frame in frames:
                yield video.read([int(frame)], size)[0]

    return read()


def _stored_colour(reconstruction: Reconstruction) -> Iterator[Tensor]:
    """The colour of a result, at its own size."""
    if reconstruction.rgb is None:
        raise InputError(
            "expected pictures to redraw masks with; the source is gone, and the result has no colour"
        )
    for t in range(reconstruction.num_frames):
        yield torch.from_numpy(np.asarray(reconstruction.rgb[t], np.float32))


def _redrawn(
    pictures: Iterator[Tensor], masks: Iterator[Tensor] | None, finder: MaskFinder
) -> Iterator[Tensor]:
    if masks is None:
        raise InputError("expected masks to redraw; give --mask, or a result that says what moves")
    return refine_masks(pictures, masks, finder)


def _resized_moving(reconstruction: Reconstruction, size: tuple[int, int]) -> Iterator[Tensor]:
    assert reconstruction.dynamic is not None
    for t in range(reconstruction.num_frames):
        probability = np.nan_to_num(np.asarray(reconstruction.dynamic[t], np.float32))
        yield torch.from_numpy(cv2.resize(probability, (size[1], size[0])) > 0.5)


def _write(
    after: Reconstruction, manifest: dict, output: Path, overwrite: bool, *, keeps_world: bool
) -> Reconstruction:
    posed_by = "a given trajectory" if keeps_world else "tracks with depth"
    pose = {"posed_by": posed_by, **after.diagnostics["pose"]}
    with Workspace(output, {"pose": pose}, overwrite=overwrite) as work:
        stated = manifest["provenance"].get("config", {}).get("precision")
        precision: Precision = "float32" if stated == "float32" else "float16"
        writer = StoreWriter(work.result, after.num_frames, after.size, precision)
        keep_colour = manifest["source"].get("path") is None and after.rgb is not None
        for t in range(after.num_frames):
            maps = FrameMaps(
                t,
                torch.from_numpy(np.float32(after.depth[t])),
                torch.from_numpy(np.float32(after.confidence[t])),
                None if after.dynamic is None else torch.from_numpy(np.float32(after.dynamic[t])),
            )
            rgb: np.ndarray | None = None
            if keep_colour and after.rgb is not None:
                rgb = np.round(np.asarray(after.rgb[t], np.float32) * 255).astype(np.uint8)
            writer.write(maps, rgb)
        assert after.c2w is not None
        per_frame = {
            "intrinsics": np.asarray(after.intrinsics, np.float32),
            "times_s": after.times_s,
            "source_frames": np.asarray(after.source_frames, np.int64),
            "c2w": np.asarray(after.c2w, np.float32),
        }
        if after.scene is not None:
            per_frame["scene"] = np.asarray(after.scene, np.int64)
        if after.reliable is not None:
            per_frame["reliable"] = np.asarray(after.reliable, bool)
        kept = {k: manifest[k] for k in ("unit", "source") if k in manifest}
        if after.scale_kind == "metric":
            kept["unit"] = "metres"
        provenance = {
            **manifest["provenance"],
            "pose": pose,
            "metric": after.diagnostics.get("metric"),
        }
        writer.finish(
            per_frame,
            {**kept, "scale_kind": after.scale_kind, "has_poses": True, "provenance": provenance},
            after.diagnostics,
            world="given" if keeps_world else "first camera",
        )
        return work.publish()
