"""HoloLens recordings in the layout of deep-video-mvs: images/, depth/ (mm), K.txt, poses.txt (rows of 16 numbers)."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import list_files, map_frames, map_size, png_depth, rgb_frames, same_stems

FPS = 30.0


def _find(root: Path) -> dict[str, Path]:
    def is_scene(path: Path) -> bool:
        return all((path / part).exists() for part in ("images", "depth", "K.txt", "poses.txt"))

    if is_scene(root):
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and is_scene(path)}


def _load(folder: Path, name: str) -> Sequence:
    frames = list_files(folder / "images")
    depth_files = list_files(folder / "depth")
    if not frames:
        raise missing(READER, folder, "no images in images/")
    depth_files = same_stems(frames, depth_files, READER, folder, "depth maps in depth/")
    rows = np.loadtxt(folder / "poses.txt", ndmin=2, encoding="utf-8")
    # Rows follow the sorted file names; file numbers skip values, so they are not row numbers.
    if rows.shape[1] != 16 or len(rows) < len(frames):
        raise missing(READER, folder, f"{len(frames)} frames, but poses.txt has {list(rows.shape)} numbers")
    matrix = np.loadtxt(folder / "K.txt", encoding="utf-8")
    matrix[:2, 2] += 0.5  # from integer pixel centres
    depth = map_frames(depth_files, png_depth(1000.0))
    return Sequence(
        name=name,
        dataset="hololens",
        times_s=np.arange(len(frames)) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=np.tile(matrix, (len(frames), 1, 1)),
        c2w=rows[: len(frames)].reshape(-1, 4, 4),
        depth_source="time-of-flight sensor",
        pose_source="device tracking",
        files=(*frames, *depth_files, folder / "K.txt", folder / "poses.txt"),
        notes=("times are nominal: the layout has none",),
    )


READER = Reader(
    name="hololens",
    title="HoloLens recordings (deep-video-mvs layout)",
    url="https://github.com/ardaduz/deep-video-mvs",
    layout="<scene>/images/*.png, depth/*.png (uint16, mm), K.txt, poses.txt (4x4 camera-to-world per row).",
    find=_find,
    load=_load,
)
