"""PointOdyssey: long rendered videos of people and animals.

Get it from https://pointodyssey.com (CC BY-NC-SA 4.0).

- Depth: 16-bit PNG, z-depth in metres = value / 65535 * 1000. 0 is missing; values from 65,500 on are what lies behind
  everything (+inf). Public preparations leave both out; that the second is the sky is our reading, and indoors it can be
  a hole in the walls.
- Cameras: ``anno.npz``: ``intrinsics`` [T, 3, 3] and ``extrinsics`` [T, 4, 4], world to camera, OpenCV axes, one for each
  frame in order. Where pixel centres lie is not stated; the numbers are taken as they are.
- Times: nominal, 30 frames a second; not verified.
- Trajectories are not read.

Source: y-zheng18/point_odyssey (utils/reprojection.py: scale of depth); MonST3R (datasets/pointodyssey.py) and CUT3R
(preprocess_point_odyssey.py) for names and the direction of the poses; MotionCrafter (gen_point_odessey_video.py) for the
largest value.
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    find_below,
    frame_numbers,
    known_depth,
    list_files,
    map_frames,
    map_size,
    nominal_times,
    rgb_frames,
    rows_of,
    same_stems,
)
from geo4d.formats.arrays import load_npz
from geo4d.formats.images import load_png16

LARGEST = 1000.0
"""Metres of the value 65,535."""
SKY_VALUE = 65500


def _find(root: Path) -> dict[str, Path]:
    def is_sequence(path: Path) -> bool:
        return (path / "rgbs").is_dir() and ((path / "anno.npz").is_file() or (path / "depths").is_dir())

    return find_below(root, ("train", "val", "test", "sample"), is_sequence)


def _depth(path: Path) -> np.ndarray:
    scale = LARGEST / 65535
    return known_depth(load_png16(path) * scale, sky_from=SKY_VALUE * scale)


def _load(folder: Path, name: str) -> Sequence:
    frames = list_files(folder / "rgbs")
    depth_files = list_files(folder / "depths", (".png",))
    if not frames or not depth_files:
        raise missing(READER, folder, f"{len(frames)} pictures in rgbs/, {len(depth_files)} maps in depths/")
    if not (folder / "anno.npz").is_file():
        raise missing(READER, folder, "no anno.npz with the cameras")
    depth_files = same_stems(frames, depth_files, READER, folder, "depth maps in depths/")
    cameras = load_npz(folder / "anno.npz", {"intrinsics", "extrinsics"})
    absent = {"intrinsics", "extrinsics"} - cameras.keys()
    if absent:
        raise missing(READER, folder, f"anno.npz without {', '.join(sorted(absent))}")
    numbers = frame_numbers(frames)
    depth = map_frames(depth_files, _depth)
    times_s, note = nominal_times(int(numbers.max()) + 1, 30.0)
    w2c = rows_of(cameras["extrinsics"].astype(np.float64), numbers, folder / "anno.npz", READER)
    return Sequence(
        name=name,
        dataset="pointodyssey",
        times_s=times_s[numbers],
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=rows_of(cameras["intrinsics"].astype(np.float64), numbers, folder / "anno.npz", READER),
        c2w=np.linalg.inv(w2c),
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, folder / "anno.npz"),
        notes=(note,),
    )


READER = Reader(
    name="pointodyssey",
    title="PointOdyssey",
    url="https://pointodyssey.com (CC BY-NC-SA 4.0)",
    layout="train|val|test/<sequence>/rgbs/rgb_NNNNN.jpg, depths/depth_NNNNN.png (uint16, / 65.535 = m), anno.npz.",
    find=_find,
    load=_load,
)
