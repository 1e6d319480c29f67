"""rerun recording (``.rrd``): cameras, pictures, depth and points on the time line of the source."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from geo4d.errors import MissingExtraError
from geo4d.export.common import chosen_frames, conventions, poses_of
from geo4d.export.config import ExportConfig
from geo4d.export.points import counted, thinned
from geo4d.types import Reconstruction


def save_recording(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """A recording for the rerun viewer (0.41).

    ``world`` states the axes, ``world/camera`` has the pose, ``world/camera/picture`` the pinhole camera and the picture,
    ``.../depth`` the depth (0 where there is none), ``world/points`` the points of the frame. Time lines: ``frame`` (of
    the result), ``source_frame`` and ``time`` (seconds in the source).
    """
    try:
        from rerun.chunk import LazyChunkStream
    except ImportError as error:
        raise MissingExtraError("rerun-sdk>=0.41", "rerun", "the rerun recording") from error

    failed: list[Exception] = []

    def chunks() -> Iterator[Any]:
        try:
            yield from _chunks(reconstruction, config)
        except Exception as error:  # the library would turn it into one of its own
            failed.append(error)
            raise

    try:
        # Not the library's file sink: that one waits for ever once the disk is full.
        LazyChunkStream.from_iter(chunks()).write_rrd(path, application_id="geo4d", recording_id=str(uuid4()))
    except RuntimeError:
        if failed:
            raise failed[0] from None
        raise
    return [path]


def _chunks(reconstruction: Reconstruction, config: ExportConfig) -> Iterator[Any]:
    import rerun as rr

    frames = chosen_frames(reconstruction, config, one_world=True)
    height, width = reconstruction.size
    c2w = poses_of(reconstruction, frames)
    axes = {"y": rr.ViewCoordinates.RIGHT_HAND_Y_UP, "z": rr.ViewCoordinates.RIGHT_HAND_Z_UP}
    yield _chunk("/world", [], rr.ViewCoordinates(axes.get(config.up or "camera", rr.ViewCoordinates.RDF)))
    words = json.dumps(conventions(reconstruction, config), indent=1)
    yield _chunk("/conventions", [], rr.TextDocument(words))
    clouds = thinned(counted(reconstruction, frames, config), len(frames), config)
    for row, (frame, cloud) in enumerate(zip(frames, clouds, strict=True)):
        times = [
            rr.TimeColumn("frame", sequence=[frame]),
            rr.TimeColumn("source_frame", sequence=[int(reconstruction.source_frames[frame])]),
            rr.TimeColumn("time", duration=[float(reconstruction.times_s[frame])]),
        ]
        pose = rr.Transform3D(translation=c2w[row, :3, 3], mat3x3=c2w[row, :3, :3])
        yield _chunk("/world/camera", times, pose)
        lens = rr.Pinhole(
            image_from_camera=np.asarray(reconstruction.intrinsics[frame], np.float64),
            resolution=[width, height],
            camera_xyz=rr.ViewCoordinates.RDF,
        )
        yield _chunk("/world/camera/picture", times, lens)
        if reconstruction.rgb is not None:
            picture = np.round(255 * np.clip(np.asarray(reconstruction.rgb[frame], np.float32), 0, 1))
            yield _chunk("/world/camera/picture", times, rr.Image(picture.astype(np.uint8)))
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        finite = np.where(np.isfinite(depth), depth, 0)
        yield _chunk("/world/camera/picture/depth", times, rr.DepthImage(finite, meter=1.0))
        yield _chunk("/world/points", times, rr.Points3D(cloud.positions, colors=cloud.colours))


def _chunk(entity: str, times: list[Any], archetype: Any) -> Any:
    """All components of an archetype at one moment; no times for what always holds."""
    from rerun.chunk import Chunk

    batches = archetype.as_component_batches()
    columns = [batch.partition([len(batch.as_arrow_array())]) for batch in batches]
    return Chunk.from_columns(entity, indexes=times, columns=columns)
