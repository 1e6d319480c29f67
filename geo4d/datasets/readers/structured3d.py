"""Structured3D, perspective views: one rendered picture of a furnished room is a sequence of one frame.

Get it from https://structured3d-dataset.org (terms of use to sign).

- Depth: 16-bit PNG in millimetres, 0 is missing (NaN); nothing marks the sky (rooms). That it is z-depth and not distance
  is not stated and was not verified.
- Cameras: ``camera_pose.txt``: position (millimetres), direction of view, up, half angles of view (radians): a row of 12
  numbers. Principal point in the middle.

Source: data_organization.md of bertjiazheng/Structured3D.
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import constant_intrinsics, map_frames, map_size, png_depth, rgb_frames
from geo4d.errors import InputError
from geo4d.formats.cameras import load_rows


def _find(root: Path) -> dict[str, Path]:
    scenes = [root] if root.name.startswith("scene_") else sorted(root.glob("scene_*"))
    return {
        f"{scene.name}/{path.parts[-4]}/{path.name}": path
        for scene in scenes
        for path in sorted(scene.glob("2D_rendering/*/perspective/full/*"))
        if path.is_dir()
    }


def look_at(direction: np.ndarray, up: np.ndarray) -> np.ndarray:
    """[3, 3] from our camera's axes to the world's.

    Args:
        direction: of view, any length.
        up: roughly upward, not along ``direction``.
    Raises:
        InputError: the two do not span a plane.
    """
    forward = direction / max(np.linalg.norm(direction), 1e-12)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:
        raise InputError(f"expected a direction of view and another of up, got {direction} and {up}")
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def _load(folder: Path, name: str) -> Sequence:
    files = [folder / "rgb_rawlight.png", folder / "depth.png", folder / "camera_pose.txt"]
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise missing(READER, folder, f"{', '.join(absent)} not there")
    row = load_rows(files[2], 12, "camera row")[0]
    depth = map_frames([files[1]], png_depth(1000.0))
    height, width = map_size(depth)
    c2w = np.eye(4)
    c2w[:3, :3] = look_at(row[3:6], row[6:9])
    c2w[:3, 3] = row[:3] / 1000
    focal = (width / 2 / np.tan(row[9]), height / 2 / np.tan(row[10]))
    return Sequence(
        name=name,
        dataset="structured3d",
        times_s=np.zeros(1),
        size=(height, width),
        rgb=rgb_frames([files[0]]),
        depth=depth,
        intrinsics=constant_intrinsics(1, *focal, width / 2, height / 2, integer_centres=False),
        c2w=c2w[None],
        depth_source="rendered",
        pose_source="rendered",
        files=tuple(files),
    )


READER = Reader(
    name="structured3d",
    title="Structured3D (perspective)",
    url="https://structured3d-dataset.org (terms of use to sign)",
    layout="scene_NNNNN/2D_rendering/<room>/perspective/full/<position>/rgb_rawlight.png, depth.png (uint16, mm), "
    "camera_pose.txt.",
    find=_find,
    load=_load,
    still=True,
)
