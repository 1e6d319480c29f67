"""nerfstudio folder, as its dataparser (1.1.5) reads it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export.common import chosen_frames, conventions, poses_of, write_readme
from geo4d.export.config import ExportConfig
from geo4d.export.pictures import pictures_of
from geo4d.export.points import iter_static_points
from geo4d.formats.files import new_folder
from geo4d.formats.images import save_mask, save_png16
from geo4d.formats.nerfstudio import NERFSTUDIO_DEPTH_UNIT, NerfstudioModel, save_nerfstudio
from geo4d.formats.points import PointCloud, save_ply
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

REACH = 100
"""Depth beyond so many times the median is left out, so that 16 bits resolve what is near."""


def save_scene_nerfstudio(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """nerfstudio folder, as its dataparser (1.1.5) reads it without any flag where the camera moves.

    ``transforms.json`` (OpenGL camera axes), ``images/``, ``depth/`` (16-bit z-depth, value times 0.001 in the unit of
    the poses; 0 in the sky, where invalid, and where 16 bits do not reach), ``masks/`` (0 where something moves, else
    255; only of results that know what moves) and ``sparse_pc.ply``, the points that splatting starts from, if any.
    ``config.images`` chooses the size of pictures, masks and cameras; depth keeps the size of the maps, and nerfstudio
    enlarges it. Poses, points and depth are scaled by one factor, stated in ``transforms.json``; see
    ``nerfstudio_scale``.

    Raises:
        ValueError: no poses, no pictures, no frames, or frames of several scenes.
        OutputError: ``path`` exists or cannot be written.
    """
    frames = chosen_frames(reconstruction, config, one_world=True)
    pictures = pictures_of(reconstruction, config, "the nerfstudio export")
    scale = nerfstudio_scale(reconstruction, frames)
    masked = reconstruction.dynamic is not None
    names = [f"frame_{frame:06d}.png" for frame in frames]
    c2w = poses_of(reconstruction, frames)
    c2w[:, :3, 3] *= scale
    with_depth = too_far = 0
    with new_folder(path) as folder:
        points, colours = [], []
        for row, (frame, picture, xyz, rgb) in enumerate(iter_static_points(reconstruction, frames, config)):
            assert rgb is not None
            pictures.save(folder / "images" / names[row], frame, picture, None)
            if masked:
                save_mask(folder / "masks" / names[row], pictures.static(reconstruction, frame))
            depth = np.asarray(reconstruction.depth[frame], np.float64)
            steps = np.maximum(np.round(depth * scale / NERFSTUDIO_DEPTH_UNIT), 1)
            inside = np.isfinite(depth) & (steps <= 65535)
            save_png16(folder / "depth" / names[row], np.where(inside, steps, 0))
            with_depth += int(np.isfinite(depth).sum())
            too_far += int(np.isfinite(depth).sum() - inside.sum())
            points.append(xyz * scale)
            colours.append(rgb)
        cloud = PointCloud(np.concatenate(points).astype(np.float32), np.concatenate(colours))
        if cloud.num_points:
            comments = [
                "points in the world and unit of the poses of transforms.json",
                f"unit: 1 of the result is {scale:g} here",
            ]
            save_ply(folder / "sparse_pc.ply", [cloud], comments)
        if too_far:
            log.warning(
                "%.2g %% of the pixels with depth are left out: farther than %d times the median, 16 bits do not reach",
                100 * too_far / with_depth,
                REACH,
            )
        if np.ptp(c2w[:, :3, 3], axis=0).max() == 0:
            log.warning(
                "the camera does not move: nerfstudio divides by the extent of the path; "
                "give its dataparser --auto-scale-poses False"
            )
        model = NerfstudioModel(
            files=[f"images/{name}" for name in names],
            depth_files=[f"depth/{name}" for name in names],
            mask_files=[f"masks/{name}" for name in names] if masked else [],
            ply_file="sparse_pc.ply" if cloud.num_points else None,
            intrinsics=pictures.intrinsics(reconstruction, frames),
            sizes=[pictures.size] * len(frames),
            c2w=c2w,
            depth_unit=NERFSTUDIO_DEPTH_UNIT,
            times_s=np.asarray(reconstruction.times_s, np.float64)[frames],
        )
        notes: dict[str, Any] = {
            **conventions(reconstruction, config),
            "camera_axes_of_this_file": "OpenGL: +x right, +y up, +z backward; the world keeps its axes",
            "scale_factor": scale,
            "unit_of_this_file": "poses, points and depth of the result times scale_factor",
            "depth": "z-depth (not ray length): value times 0.001 in the unit of the poses; 0 = sky, invalid or too far",
            "masks": "0 = moving, ignored; 255 = static",
            "source_frames": [int(reconstruction.source_frames[frame]) for frame in frames],
        }
        save_nerfstudio(folder / "transforms.json", model, {"geo4d": notes})
        files = {
            "transforms.json": "cameras",
            "images/": pictures.words,
            "depth/": "value * 0.001 = z-depth in the unit of the poses; 0 = none",
            "sparse_pc.ply": "points sampled where nothing moves, in the world and unit of the poses",
        }
        if masked:
            files["masks/"] = "0 (ignored) where something moves, else 255"
        files["scale"] = f"poses, points and depth are those of the result times {scale:g}"
        write_readme(folder, reconstruction, config, frames, files)
    return [path]


def nerfstudio_scale(reconstruction: Reconstruction, frames: Sequence[int]) -> float:
    """The factor for poses, points and depth with which steps of 0.001 in 16 bits hold the depth of ``frames``.

    The farthest depth, or ``REACH`` times the median where that is nearer, comes just below 65.535. Metres
    stay metres where that fits and half of the pixels are farther than a quarter of a metre.
    """
    largest, sample = 0.0, []
    for frame in frames:
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        finite = depth[np.isfinite(depth)]
        if finite.size:
            largest = max(largest, float(finite.max()))
            sample.append(finite[:: max(1, finite.size // 4096)])
    if largest <= 0:
        log.warning("none of the %d frames has depth; the depth images are empty", len(frames))
        return 1.0
    median = float(np.median(np.concatenate(sample)))
    reach = 65535 * NERFSTUDIO_DEPTH_UNIT
    far = min(largest, REACH * median)
    if reconstruction.scale_kind == "metric" and far <= reach and median >= 0.25:
        return 1.0
    exact = reach / far
    digits = 10.0 ** (
        np.floor(np.log10(exact)) - 2
    )  # three digits, rounded down, read better and lose nothing
    return float(f"{np.floor(exact / digits) * digits:.3g}")
