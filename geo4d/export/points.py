"""Point clouds: which points an export has, and PLY."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from geo4d.errors import GeometryError
from geo4d.export.common import chosen_frames, conventions, frame_notes, is_file, poses_of, write_readme
from geo4d.export.config import AXES, ExportConfig
from geo4d.export.kept import MOVING, KeptShare, default_confidence_threshold, kept_mask
from geo4d.formats.files import new_folder
from geo4d.formats.points import PointCloud, VoxelFilter, save_ply
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)


def resolved(reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig) -> ExportConfig:
    """``config`` with the default confidence threshold filled in."""
    if config.min_confidence is not None:
        return config
    threshold = default_confidence_threshold(reconstruction, frames, edge_step=config.edge_step)
    return replace(config, min_confidence=threshold)


def iter_point_clouds(
    reconstruction: Reconstruction,
    frames: Sequence[int],
    config: ExportConfig,
    share: KeptShare | None = None,
) -> Iterator[PointCloud]:
    """World points of every frame that pass the confidence, edge and voxel filters, one cloud a frame.

    Without poses they are camera points of each frame, in the axes of ``config.up``.

    Args:
        share: counts what the confidence and edge filters keep.
    """
    config = resolved(reconstruction, frames, config)
    assert config.min_confidence is not None
    frame_of_reference: Literal["camera", "world"] = "world" if reconstruction.has_poses else "camera"
    points = reconstruction.points(frame_of_reference)
    voxels = VoxelFilter(config.voxel_size) if config.voxel_size > 0 else None
    for frame in frames:
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        confidence = np.asarray(reconstruction.confidence[frame], np.float32)
        keep = kept_mask(depth, confidence, min_confidence=config.min_confidence, edge_step=config.edge_step)
        if share is not None:
            share.add(depth, confidence, keep, moving_of(reconstruction, frame))
        positions = points[frame][keep]
        if not reconstruction.has_poses and config.up not in (
            None,
            "camera",
        ):  # otherwise the poses are turned
            positions = positions @ config.rotation.T.astype(np.float32)
        colours = None
        if reconstruction.rgb is not None:
            colours = np.round(255 * np.clip(reconstruction.rgb[frame][keep], 0, 1)).astype(np.uint8)
        cloud = PointCloud(
            positions=positions.astype(np.float32),
            colours=colours,
            confidence=confidence[keep].astype(np.float32),
            frames=np.full(len(positions), frame, np.int32),
        )
        yield voxels(cloud) if voxels else cloud


def moving_of(reconstruction: Reconstruction, frame: int) -> np.ndarray | None:
    """[H, W] probability that a pixel moves, or None where the result has none."""
    return None if reconstruction.dynamic is None else np.asarray(reconstruction.dynamic[frame], np.float32)


def counted(
    reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig
) -> Iterator[PointCloud]:
    """The clouds of ``iter_point_clouds``; at the end says how much was kept, and refuses a cloud without any point."""
    config = resolved(reconstruction, frames, config)
    assert config.min_confidence is not None
    share = KeptShare(config.min_confidence, config.edge_step)
    empty = []
    for frame, cloud in zip(frames, iter_point_clouds(reconstruction, frames, config, share), strict=True):
        if cloud.num_points == 0:
            empty.append(frame)
        yield cloud
    if share.kept == 0:
        raise _no_points(share, len(frames))
    share.say(log)
    if empty and not config.voxel_size:
        log.warning("%d of %d frames have no points: %s", len(empty), len(frames), _few(empty))


def _no_points(share: KeptShare, num_frames: int) -> Exception:
    if share.finite == 0:
        return GeometryError(
            f"expected frames with depth, but none of the {num_frames} chosen ones has any; see 'geo4d report'"
        )
    return ValueError(f"no point is left of {share.finite} pixels with depth: {share.advice()}")


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def thinned(clouds: Iterator[PointCloud], num_frames: int, config: ExportConfig) -> Iterator[PointCloud]:
    """The clouds with at most ``max_points`` points together; says once that it thins."""
    limit = max(config.max_points // num_frames, 1) if config.max_points else 0
    rng = np.random.default_rng(config.seed)
    said = False
    for cloud in clouds:
        if 0 < limit < cloud.num_points:
            if not said:
                log.warning(
                    "thinned to %d points in all; --max-points 0 keeps every point, --voxel-size thins evenly in space",
                    config.max_points,
                )
                said = True
            cloud = cloud.select(np.sort(rng.choice(cloud.num_points, limit, replace=False)))
        yield cloud


def is_static(reconstruction: Reconstruction, frame: int) -> np.ndarray:
    """bool [H, W]: True where nothing is known to move."""
    dynamic = moving_of(reconstruction, frame)
    return np.ones(reconstruction.size, bool) if dynamic is None else ~(dynamic >= MOVING)


def iter_static_points(
    reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig, *, tell: bool = True
) -> Iterator[tuple[int, np.ndarray | None, np.ndarray, np.ndarray | None]]:
    """Frame, picture, and world points [N, 3] float64 with colours [N, 3] uint8, sampled where nothing moves.

    Picture and colours are None without a source video. At the end says how much of the depth passed the filters (unless
    not to ``tell``). Without any point it warns: cameras and pictures are of use alone.
    """
    config = resolved(reconstruction, frames, config)
    assert config.min_confidence is not None
    share = KeptShare(config.min_confidence, config.edge_step)
    rng = np.random.default_rng(config.seed)
    per_frame = min(config.points_per_frame, -(-config.most_points // len(frames)))
    width = reconstruction.size[1]
    c2w = poses_of(reconstruction, frames)
    static = 0
    for row, frame in enumerate(frames):
        picture = None if reconstruction.rgb is None else np.asarray(reconstruction.rgb[frame], np.float32)
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        confidence = np.asarray(reconstruction.confidence[frame], np.float32)
        keep = kept_mask(depth, confidence, min_confidence=config.min_confidence, edge_step=config.edge_step)
        share.add(depth, confidence, keep, None)
        pixels = np.flatnonzero(keep & is_static(reconstruction, frame))
        static += len(pixels)
        pixels = rng.choice(pixels, min(per_frame, len(pixels)), replace=False)
        z = depth.astype(np.float64).reshape(-1)[pixels]
        xy = np.stack([pixels % width + 0.5, pixels // width + 0.5, np.ones(len(pixels))], axis=1)
        inverse = np.linalg.inv(np.asarray(reconstruction.intrinsics[frame], np.float64))
        camera = (xy @ inverse.T) * z[:, None]
        world = camera @ c2w[row, :3, :3].T + c2w[row, :3, 3]
        colours = None
        if picture is not None:
            colours = np.round(255 * np.clip(picture.reshape(-1, 3)[pixels], 0, 1)).astype(np.uint8)
        yield frame, picture, world, colours
    if static == 0 and share.kept:
        log.warning("no points: all pixels that pass the filters move")
    elif static == 0:
        log.warning("no points: %s", _no_points(share, len(frames)))
    elif tell:
        share.say(log)
        log.info("points were sampled where nothing moves: %d of %d of these pixels", static, share.kept)


def sampled_static(
    reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig
) -> tuple[PointCloud, Float[np.ndarray, " N"]]:
    """The points of ``iter_static_points`` as one cloud, and twice the distance between neighbouring pixels there."""
    c2w = poses_of(reconstruction, frames)
    points, colours, widths = [], [], []
    for row, (frame, _, xyz, rgb) in enumerate(
        iter_static_points(reconstruction, frames, config, tell=False)
    ):
        points.append(xyz.astype(np.float32))
        colours.append(rgb)
        depth = (xyz - c2w[row, :3, 3]) @ c2w[row, :3, 2]
        widths.append(2 * depth / float(reconstruction.intrinsics[frame, 0, 0]))
    coloured = [rgb for rgb in colours if rgb is not None]
    cloud = PointCloud(np.concatenate(points), np.concatenate(coloured) if coloured else None)
    return cloud, np.concatenate(widths).astype(np.float32)


def save_points_ply(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """Binary PLY: one file with all frames, or a folder with one file a frame."""
    single = is_file(path, ".ply")
    frames = chosen_frames(
        reconstruction, config, one_world=single and (config.frames is None or len(config.frames) > 1)
    )
    words = [f"{name}: {meaning}" for name, meaning in conventions(reconstruction, config).items()]
    words.append(f"points are in the {'world' if reconstruction.has_poses else 'camera'} frame")
    words.append(f"axes of the points of this file: {AXES[config.up or 'camera'][1]}")
    clouds = counted(reconstruction, frames, config)

    if single:
        listed = " ".join(
            f"{f}:{int(reconstruction.source_frames[f])}:{float(reconstruction.times_s[f]):.6f}"
            for f in frames
        )
        save_ply(
            path,
            thinned(clouds, len(frames), config),
            [*words, f"at most {config.max_points} points" if config.max_points else "all points",
             f"frame:source_frame:time_s {listed}"],
        )  # fmt: skip
        return [path]
    with new_folder(path) as folder:
        for frame, cloud in zip(frames, clouds, strict=True):
            notes = [f"{name}: {value}" for name, value in frame_notes(reconstruction, frame).items()]
            save_ply(folder / f"points_{frame:06d}.ply", [cloud], words + notes)
        write_readme(
            folder,
            reconstruction,
            config,
            frames,
            {"points_FRAME.ply": "points, colours, confidence of one frame"},
        )
    return [path]
