"""ScanNet v2, exported: colour is resized to the depth camera, whose intrinsics count."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    list_files,
    map_frames,
    map_size,
    natural_key,
    png_depth,
    rgb_frames,
    same_stems,
)

FPS = 30.0
VIDEO_FRAMES = slice(0, 270, 3)
"""Every third frame up to 90, as DepthCrafter, Geo4D and GeometryCrafter take them."""
NUM_SCENES = 100
BORDER = 8
"""Black rim of the colour images that GeometryCrafter cuts off, pixels at depth size."""


def _find(root: Path) -> dict[str, Path]:
    def is_scene(path: Path) -> bool:
        return any((path / color).is_dir() and (path / depth).is_dir() for color, depth in _FOLDERS)

    if is_scene(root) and (
        (root / "pose").is_dir() or (root / "pose_90.txt").is_file() or (root / "intrinsic").is_dir()
    ):
        return {root.name: root}
    for base in (root / "scans_test", root / "scans", root):
        found = {path.name: path for path in sorted(base.glob("scene*")) if is_scene(path)}
        if found:
            return found
    return {}


_FOLDERS = (("color", "depth"), ("color_90", "depth_90"))


def _load(folder: Path, name: str) -> Sequence:
    color, depth_name = next(pair for pair in _FOLDERS if (folder / pair[0]).is_dir())
    frames = list_files(folder / color)
    depth_files = list_files(folder / depth_name)
    if not frames:
        raise missing(READER, folder, f"no images in {color}/")
    depth_files = same_stems(frames, depth_files, READER, folder, f"depth maps in {depth_name}/")
    pose_files = sorted((folder / "pose").glob("*.txt"), key=lambda path: natural_key(path.stem))
    c2w = None
    if pose_files:
        pose_files = same_stems(frames, pose_files, READER, folder, "poses in pose/")
        c2w = np.stack([np.loadtxt(path, encoding="utf-8").reshape(4, 4) for path in pose_files])
    elif (folder / "pose_90.txt").is_file():
        c2w = np.loadtxt(folder / "pose_90.txt", ndmin=2, encoding="utf-8").reshape(-1, 4, 4)
    notes = []
    if c2w is not None:
        lost = np.logical_not(np.isfinite(c2w).all(axis=(1, 2)))  # lost tracking is stored as -inf
        c2w = np.where(lost[:, None, None], np.nan, c2w)
        if lost.any():
            notes.append(f"{int(lost.sum())} frames lost tracking and have no pose")
    intrinsics = None
    if (folder / "intrinsic" / "intrinsic_depth.txt").is_file():
        matrix = np.loadtxt(folder / "intrinsic" / "intrinsic_depth.txt", encoding="utf-8")[:3, :3]
        matrix[:2, 2] += 0.5  # from integer pixel centres
        intrinsics = np.tile(matrix, (len(frames), 1, 1))
    depth = map_frames(depth_files, png_depth(1000.0))
    return Sequence(
        name=name,
        dataset="scannet",
        times_s=np.arange(len(frames)) * (1 if color == "color" else 3) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=intrinsics,
        c2w=c2w,
        depth_source="structured-light sensor",
        pose_source="BundleFusion",
        files=(*frames, *depth_files, *pose_files),
        notes=tuple(notes),
    )


READER = Reader(
    name="scannet",
    title="ScanNet v2 (exported)",
    url="http://www.scan-net.org (terms of use to sign)",
    layout="scans_test/<scene>/color/*.jpg, depth/*.png (uint16, mm), pose/*.txt, intrinsic/intrinsic_depth.txt.",
    find=_find,
    load=_load,
)
