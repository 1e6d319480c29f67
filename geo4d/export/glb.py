"""GLB: points in glTF axes, with the camera that saw them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from geo4d.export.common import chosen_frames, conventions, frame_notes, is_file, poses_of, write_readme
from geo4d.export.config import ExportConfig
from geo4d.export.film import clipping_range, film_back
from geo4d.export.points import counted, thinned
from geo4d.formats.files import new_folder
from geo4d.formats.glb import GlbCamera, save_glb
from geo4d.formats.movies import usual_rate
from geo4d.formats.points import PointCloud
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

_FROM_GLTF = np.diag([1.0, -1, -1, 1])
"""The world that formats see has glTF's axes; the writer of bytes turns OpenCV's into them itself."""


def save_points_glb(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """GLB (glTF axes: +y up) with points and camera: one file with all frames, or a folder with one file a frame.

    The camera moves with the times of the source, from 0. With ``per_frame`` every frame is a node, shown from its time
    to that of the next frame.
    """
    single = is_file(path, ".glb")
    frames = chosen_frames(
        reconstruction, config, one_world=single and (config.frames is None or len(config.frames) > 1)
    )
    notes: dict[str, Any] = {
        **conventions(reconstruction, config),
        "axes_of_this_file": "glTF: +x right, +y up, +z backward",
        "colours": "COLOR_0 in linear light",
    }
    near, far = clipping_range(reconstruction, frames)
    if single:
        clouds = thinned(_turned(counted(reconstruction, frames, config)), len(frames), config)
        nodes = [(f"frame_{f:06d}", frame_notes(reconstruction, f)) for f in frames]
        times = rising_times(np.asarray(reconstruction.times_s, np.float64)[frames])
        save_glb(
            path,
            clouds,
            {**notes, "frames": [note for _, note in nodes]},
            nodes=nodes if config.per_frame else None,
            camera=_camera(reconstruction, frames, times, near, far, tell=True),
            shown_s=times.tolist() if config.per_frame and len(frames) > 1 else None,
        )
        return [path]
    with new_folder(path) as folder:
        for frame, cloud in zip(frames, _turned(counted(reconstruction, frames, config)), strict=True):
            save_glb(
                folder / f"points_{frame:06d}.glb",
                cloud,
                {**notes, **frame_notes(reconstruction, frame)},
                camera=_camera(reconstruction, [frame], np.zeros(1), near, far, tell=frame == frames[0]),
            )
        files = {"points_FRAME.glb": "points, colours and camera of one frame, glTF axes"}
        write_readme(folder, reconstruction, config, frames, files)
    return [path]


def rising_times(times_s: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Times from 0 on that rise in float32; a step that does not takes the usual one."""
    steps = np.diff(times_s)
    usual = 1 / usual_rate(times_s)
    return np.concatenate([[0.0], np.cumsum(np.where(steps > 1e-4, steps, usual))])


def _turned(clouds: Iterator[PointCloud]) -> Iterator[PointCloud]:
    for cloud in clouds:
        yield replace(cloud, positions=cloud.positions * np.array([1, -1, -1], np.float32))


def _camera(
    reconstruction: Reconstruction,
    frames: Sequence[int],
    times_s: Float[np.ndarray, " T"],
    near: float,
    far: float,
    *,
    tell: bool,
) -> GlbCamera:
    """The camera as far as glTF can say it: one lens for all frames, its axis through the middle of the picture."""
    intrinsics = np.asarray(reconstruction.intrinsics, np.float64)[list(frames)]
    back = film_back(intrinsics, reconstruction.size)
    fov_y, aspect = float(np.median(back.fov_y)), float(np.median(back.width / back.height))
    if tell and not back.is_centred:
        log.warning("glTF has no place for a principal point off the centre; the camera's extras state it")
    if tell and np.ptp(back.focal) > 1e-4 * np.median(back.focal):
        log.warning("glTF has no lens that changes; the camera has the middle one, its extras state all")
    c2w = np.tile(np.eye(4), (len(frames), 1, 1))
    if reconstruction.c2w is not None:
        c2w = _FROM_GLTF @ poses_of(reconstruction, frames)
    extras = {
        "intrinsics": intrinsics.tolist(),
        "size": {"height": reconstruction.size[0], "width": reconstruction.size[1]},
        "frames": [frame_notes(reconstruction, frame) for frame in frames],
    }
    return GlbCamera(c2w, times_s, fov_y, aspect, near, far, extras)
