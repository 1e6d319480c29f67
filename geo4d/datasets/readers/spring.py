"""Spring, training split: frames of an open movie, left camera; depth from stereo disparity at 4K.

Get it from https://spring-benchmark.org (CC BY 4.0): the archives of left frames, left disparity (disp1), camera data
and maps (the sky).

- Depth: ``intrinsics fx * 0.065 m / disparity``. Disparity maps have twice the frames' size and are in pixels of the
  frames; every second row and column is used, as the authors do.
- Cameras: rows fx fy cx cy and 4x4 world to camera, OpenCV axes; row ``n - 1`` belongs to ``frame_left_n``. Where pixel
  centres lie is not stated; the numbers are taken as they are.
- Sky: ``maps/skymap_left``, not 0 is sky (+inf). Disparity that is 0 or NaN elsewhere is unknown (NaN).
- Times: nominal, 24 frames a second; not stated.

Source: depth and rows, cv-stuttgart/spring_utils (pointcloud.py); direction of the poses, CUT3R (preprocess_spring.py)
and MotionCrafter (gen_spring_video.py), which invert them; sky, MapAnything (conversion/spring.py).
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    frame_numbers,
    intrinsics_rows,
    known_depth,
    list_files,
    load_hdf5,
    map_size,
    nominal_times,
    rgb_frames,
    rows_of,
    same_stems,
)
from geo4d.errors import InputError
from geo4d.formats.cameras import load_rows
from geo4d.formats.images import load_image
from geo4d.types import LazyFrames

BASELINE = 0.065
"""Metres between the two cameras."""


def _find(root: Path) -> dict[str, Path]:
    def is_scene(path: Path) -> bool:
        return (path / "frame_left").is_dir() and (path / "cam_data").is_dir()

    if is_scene(root):
        return {root.name: root}
    for base in (root / "train", root / "spring" / "train", root):
        if base.is_dir():
            found = {path.name: path for path in sorted(base.iterdir()) if is_scene(path)}
            if found:
                return found
    return {}


def _halved(path: Path, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of twice the size at the frames' size."""
    if values.shape == (2 * size[0], 2 * size[1]):
        return values[::2, ::2]
    if values.shape == size:
        return values
    raise InputError(f"expected a map of {size} or twice that in {path}, got {values.shape}")


def _load(folder: Path, name: str) -> Sequence:
    frames = list_files(folder / "frame_left")
    disparity_files = list_files(folder / "disp1_left", (".dsp5",))
    sky_files = list_files(folder / "maps" / "skymap_left")
    if not (folder / "cam_data" / "extrinsics.txt").is_file():
        raise missing(READER, folder, "no cam_data/extrinsics.txt; the test split has no truth")
    if not frames or not disparity_files:
        raise missing(
            READER, folder, f"{len(frames)} frames in frame_left/, {len(disparity_files)} maps in disp1_left/"
        )
    if not sky_files:
        raise missing(READER, folder, "no maps/skymap_left/, and without it the sky has no depth rule")
    disparity_files = same_stems(frames, disparity_files, READER, folder, "disparity maps in disp1_left/")
    sky_files = same_stems(frames, sky_files, READER, folder, "sky maps in maps/skymap_left/")
    rows = frame_numbers(frames) - 1
    camera_files = (folder / "cam_data" / "intrinsics.txt", folder / "cam_data" / "extrinsics.txt")
    intrinsics = rows_of(
        load_rows(camera_files[0], 4, "camera file of fx fy cx cy"), rows, camera_files[0], READER
    )
    w2c = rows_of(
        load_rows(camera_files[1], 16, "camera file of 4x4 matrices"), rows, camera_files[1], READER
    )
    rgb = rgb_frames(frames)
    size = map_size(rgb)

    def depth(t: int) -> np.ndarray:
        disparity = _halved(disparity_files[t], load_hdf5(disparity_files[t], "disparity"), size)
        sky = _halved(sky_files[t], load_image(sky_files[t])[..., 0], size) > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = known_depth(intrinsics[t, 0] * BASELINE / disparity)
        return np.where(sky, np.inf, metres)

    times_s, note = nominal_times(len(frames))
    return Sequence(
        name=name,
        dataset="spring",
        times_s=times_s,
        size=size,
        rgb=rgb,
        depth=LazyFrames((len(frames), *size), np.dtype(np.float32), depth),
        intrinsics=intrinsics_rows(intrinsics, integer_centres=False),
        c2w=np.linalg.inv(w2c.reshape(-1, 4, 4)),
        depth_source="rendered disparity",
        pose_source="rendered",
        files=(*frames, *disparity_files, *sky_files, *camera_files),
        notes=(note,),
    )


READER = Reader(
    name="spring",
    title="Spring (training split)",
    url="https://spring-benchmark.org (CC BY 4.0)",
    layout="train/<scene>/frame_left/frame_left_NNNN.png, disp1_left/disp1_left_NNNN.dsp5, "
    "maps/skymap_left/skymap_left_NNNN.png, cam_data/intrinsics.txt, cam_data/extrinsics.txt.",
    find=_find,
    load=_load,
)
