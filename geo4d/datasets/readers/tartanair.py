"""TartanAir: rendered scenes, poses in NED axes (x forward, y right, z down), one pose row per frame of the clip.

Get it from https://theairlab.org/tartanair-dataset (CC BY 4.0).

- Depth: npy, z-depth in metres. From 1,000 m on it is the sky (+inf): the engine draws it on a sphere of some 10,000 m.
- Cameras: 640 x 480, focal length 320, principal point 320, 240. Line i of ``pose_left.txt`` belongs to frame number i.
- Times: frame number / 30.

Source: data_type.md of castacks/tartanair_tools and its issue 67 (z-depth); the limit, CUT3R (datasets/tartanair.py).
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    known_depth,
    list_files,
    map_frames,
    map_size,
    rgb_frames,
    same_stems,
)
from geo4d.errors import InputError
from geo4d.formats.arrays import load_npy
from geo4d.formats.cameras import quaternions_to_poses
from geo4d.geometry.poses import ned_to_opencv

FPS = 30.0
SKY = 1000.0
"""Metres."""


def _find(root: Path) -> dict[str, Path]:
    def is_clip(path: Path) -> bool:
        return (path / "image_left").is_dir() and (path / "pose_left.txt").is_file()

    if is_clip(root):
        return {root.name: root}
    return {
        "/".join(path.parent.relative_to(root).parts): path.parent
        for path in sorted(root.glob("**/pose_left.txt"))
        if is_clip(path.parent)
    }


def _depth(path: Path) -> np.ndarray:
    try:
        values = load_npy(path).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"expected a float32 depth array in {path}, got: {error}") from error
    return known_depth(values, sky_from=SKY)


def _load(folder: Path, name: str) -> Sequence:
    import torch

    frames = list_files(folder / "image_left")
    depth_files = list_files(folder / "depth_left", (".npy",))
    if not frames:
        raise missing(READER, folder, "no images in image_left/")
    depth_files = same_stems(frames, depth_files, READER, folder, "depth maps in depth_left/")
    numbers = [int(path.stem.split("_")[0]) for path in frames]
    rows = np.loadtxt(folder / "pose_left.txt", ndmin=2, encoding="utf-8")
    # Line i belongs to frame number i, so a piece of a clip picks its lines by number.
    if rows.shape[1] != 7 or max(numbers) >= len(rows):
        raise missing(
            READER,
            folder,
            f"pose_left.txt has {list(rows.shape)} values, frame {max(numbers)} needs 7 in its row",
        )
    ned = quaternions_to_poses(rows[numbers, :3], rows[numbers][:, [6, 3, 4, 5]])
    depth = map_frames(depth_files, _depth)
    return Sequence(
        name=name,
        dataset="tartanair",
        times_s=np.array(numbers) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=constant_intrinsics(len(frames), 320.0, 320.0, 320.0, 240.0, integer_centres=False),
        c2w=ned_to_opencv(torch.from_numpy(ned)).numpy(),
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, folder / "pose_left.txt"),
    )


READER = Reader(
    name="tartanair",
    title="TartanAir",
    url="https://theairlab.org/tartanair-dataset (CC BY 4.0)",
    layout="<clip>/image_left/NNNNNN_left.png, depth_left/NNNNNN_left_depth.npy, pose_left.txt.",
    find=_find,
    load=_load,
)
