"""GMU Kitchens: Kinect v2 recordings at 1920 x 1080, evaluated at 960 x 540."""

import re
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import constant_intrinsics, list_files, rgb_frames
from geo4d.formats.images import load_image, load_png16
from geo4d.types import LazyFrames

FPS = 30.0
VIDEO_FRAMES = slice(0, 220, 2)
"""Every second frame up to 110, as in GeometryCrafter."""
INTRINSICS = (1048.0, 1051.0, 960.0, 529.0)
"""fx, fy, cx, cy at 1920 x 1080, as in GeometryCrafter's evaluation."""


def _find(root: Path) -> dict[str, Path]:
    if (root / "Images").is_dir() and (root / "Depths").is_dir():
        return {root.name: root}
    return {path.name: path for path in sorted(root.glob("gmu_scene*")) if (path / "Images").is_dir()}


def _load(folder: Path, name: str) -> Sequence:
    import cv2

    frames = [path for path in list_files(folder / "Images") if path.name.startswith("rgb_")]
    depth_files = [folder / "Depths" / path.name.replace("rgb_", "depth_") for path in frames]
    absent = [path for path in depth_files if not path.is_file()]
    if not frames or absent:
        raise missing(READER, folder, f"no images, or {len(absent)} of {len(frames)} depth maps missing")
    height, width = load_image(frames[0]).shape[:2]
    size = (height // 2, width // 2)

    def half_depth(t: int) -> np.ndarray:
        raw = load_png16(depth_files[t])
        known = raw > 0
        # Depth is averaged with neighbours, missing ones count as 0: the released preparation does this.
        depth = cv2.resize(
            np.where(known, raw / 1000, 1e-5).astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR
        )
        share = cv2.resize(known.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.where(share > 0.5, depth, np.nan)

    full = rgb_frames(frames)

    def half_rgb(t: int) -> np.ndarray:
        return np.clip(cv2.resize(full[t], size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)

    fx, fy, cx, cy = (value * width / 1920 / 2 for value in INTRINSICS)
    numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in frames]
    return Sequence(
        name=name,
        dataset="gmu-kitchens",
        times_s=np.array(numbers) / FPS,
        size=size,
        rgb=LazyFrames((len(frames), *size, 3), np.dtype(np.float32), half_rgb),
        depth=LazyFrames((len(frames), *size), np.dtype(np.float32), half_depth),
        intrinsics=constant_intrinsics(len(frames), fx, fy, cx, cy, integer_centres=True),
        depth_source="time-of-flight sensor",
        files=(*frames, *depth_files),
        notes=("poses of the dataset are up to a scale per scene and are not read",),
    )


READER = Reader(
    name="gmu-kitchens",
    title="GMU Kitchens",
    url="https://cs.gmu.edu/~robot/gmu-kitchens.html",
    layout="gmu_scene_NNN/Images/rgb_N.png, Depths/depth_N.png (uint16, mm).",
    find=_find,
    load=_load,
)
