"""Renderings with one 3x4 projection matrix per frame (the Barcelona Pavilion multi-view set)."""

import re
from pathlib import Path

import numpy as np
from scipy.linalg import rq

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import list_files, map_size, rgb_frames

FPS = 24.0


def _images(folder: Path) -> Path | None:
    candidates = [folder / "images", *sorted((folder / "images").glob("*"))]
    return next((path for path in candidates if path.is_dir() and list_files(path)), None)


def _find(root: Path) -> dict[str, Path]:
    def is_scene(path: Path) -> bool:
        return any((path / "cameras").glob("*.projmatrix"))

    if is_scene(root):
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and is_scene(path)}


def decompose(projection: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics and ``c2w`` of P = K [R | t], world to pixel."""
    upper, rotation = rq(projection[:, :3])
    sign = np.diag(np.sign(np.diag(upper)))
    upper, rotation = upper @ sign, sign @ rotation
    if np.linalg.det(rotation) < 0:  # P is only known up to its sign
        rotation, projection = -rotation, -projection
    c2w = np.eye(4)
    c2w[:3, :3] = rotation.T
    c2w[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
    return upper / upper[2, 2], c2w


def _load(folder: Path, name: str) -> Sequence:
    images = _images(folder)
    if images is None:
        raise missing(READER, folder, "no images in images/")
    frames = list_files(images)
    numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in frames]
    files = [folder / "cameras" / f"{number:03d}.projmatrix" for number in numbers]
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise missing(READER, folder, f"{len(absent)} cameras are not there, first {absent[0]}")
    cameras = [decompose(np.loadtxt(path, encoding="utf-8")) for path in files]
    intrinsics = np.stack([camera[0] for camera in cameras])
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset="pavilion",
        times_s=np.array(numbers) / FPS,
        size=map_size(rgb),
        rgb=rgb,
        intrinsics=intrinsics,
        c2w=np.stack([camera[1] for camera in cameras]),
        scale_kind="scale",
        pose_source="rendered",
        files=(*frames, *files),
        notes=("times are nominal: the layout has none",),
    )


READER = Reader(
    name="pavilion",
    title="a rendering with projection matrices (Pavilion layout)",
    url="https://github.com/rfabbri/pavilion-multiview-3d-dataset (CC BY)",
    layout="cameras/NNN.projmatrix (3 rows of 4 numbers) and images/*/*-NNNN.png.",
    find=_find,
    load=_load,
)
