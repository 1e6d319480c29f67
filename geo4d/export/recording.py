"""rerun recording (``.rrd``): cameras, pictures, depth and points on the time line of the source."""

import json
from pathlib import Path

import numpy as np

from geo4d.errors import MissingExtraError
from geo4d.export.common import chosen_frames, conventions, poses_of
from geo4d.export.config import ExportConfig
from geo4d.export.points import counted, thinned
from geo4d.types import Reconstruction


def save_recording(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """A recording for the rerun viewer.

    ``world`` states the axes, ``world/camera`` has the pose, ``world/camera/picture`` the pinhole camera and the picture,
    ``.../depth`` the depth, ``world/points`` the points of the frame. Time lines: ``frame`` (of the result),
    ``source_frame`` and ``time`` (seconds in the source).
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "rerun", "the rerun recording") from error

    frames = chosen_frames(reconstruction, config, one_world=True)
    height, width = reconstruction.size
    c2w = poses_of(reconstruction, frames)
    stream = rr.RecordingStream("geo4d", send_properties=True)
    stream.save(str(path))
    try:
        axes = {"y": rr.ViewCoordinates.RIGHT_HAND_Y_UP, "z": rr.ViewCoordinates.RIGHT_HAND_Z_UP}
        stream.log("world", axes.get(config.up or "camera", rr.ViewCoordinates.RDF), static=True)
        words = json.dumps(conventions(reconstruction, config), indent=1)
        stream.log("conventions", rr.TextDocument(words), static=True)
        clouds = thinned(counted(reconstruction, frames, config), len(frames), config)
        for row, (frame, cloud) in enumerate(zip(frames, clouds, strict=True)):
            stream.set_time("frame", sequence=frame)
            stream.set_time("source_frame", sequence=int(reconstruction.source_frames[frame]))
            stream.set_time("time", duration=float(reconstruction.times_s[frame]))
            stream.log("world/camera", rr.Transform3D(translation=c2w[row, :3, 3], mat3x3=c2w[row, :3, :3]))
            camera = rr.Pinhole(
                image_from_camera=np.asarray(reconstruction.intrinsics[frame], np.float64),
                resolution=[width, height],
                camera_xyz=rr.ViewCoordinates.RDF,
            )
            stream.log("world/camera/picture", camera)
            if reconstruction.rgb is not None:
                picture = np.round(255 * np.clip(np.asarray(reconstruction.rgb[frame], np.float32), 0, 1))
                stream.log("world/camera/picture", rr.Image(picture.astype(np.uint8)))
            depth = np.asarray(reconstruction.depth[frame], np.float32)
            finite = np.where(np.isfinite(depth), depth, 0)  # 0 is what the viewer knows as no depth
            stream.log("world/camera/picture/depth", rr.DepthImage(finite, meter=1.0))
            stream.log("world/points", rr.Points3D(cloud.positions, colors=cloud.colours))
    finally:
        stream.flush()
        stream.disconnect()
    return [path]
