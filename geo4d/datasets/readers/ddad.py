"""DDAD, and any scene in the DGP json layout: front camera, lidar projected into it, poses of every sensor."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import constant_intrinsics, rgb_frames
from geo4d.errors import InputError
from geo4d.formats.arrays import load_npz
from geo4d.formats.cameras import invert_poses, quaternions_to_poses
from geo4d.types import LazyFrames

CAMERA = "CAMERA_01"
CROP = (1152, 1920)
"""Centre crop of GeometryCrafter's evaluation (height, width)."""
VALIDATION_SPLIT = "1"
_MIN_DEPTH_M = 0.1


def _find(root: Path) -> dict[str, Path]:
    single = [path for path in sorted(root.glob("scene_*.json")) if not path.name.startswith("scene_dataset")]
    if single and (root / "calibration").is_dir():
        return {root.name: single[0]}
    listing = next(
        (path for path in (root / "ddad.json", *sorted(root.glob("scene_dataset*.json"))) if path.is_file()),
        None,
    )
    if listing is None:
        return {}
    splits = json.loads(listing.read_text(encoding="utf-8")).get("scene_splits", {})
    names = splits.get(VALIDATION_SPLIT, {}).get("filenames", [])
    # Lists name scenes that a partial copy does not hold.
    return {Path(name).parent.name: root / name for name in names if (root / name).is_file()}


def _pose(entry: dict[str, Any]) -> np.ndarray:
    rotation, translation = entry["rotation"], entry["translation"]
    return quaternions_to_poses(
        np.array([[translation[axis] for axis in "xyz"]], np.float64),
        np.array([[rotation["q" + axis] for axis in "wxyz"]], np.float64),
    )[0]


def _load(path: Path, name: str) -> Sequence:
    folder = path.parent
    try:
        scene = json.loads(path.read_text(encoding="utf-8"))
        data = {datum["key"]: datum for datum in scene["data"]}
        frames, clouds, c2w, lidar_poses, times = [], [], [], [], []
        for sample in scene["samples"]:
            chosen = {
                data[key]["id"]["name"].lower(): data[key] for key in sample["datum_keys"] if key in data
            }
            camera, lidar = chosen[CAMERA.lower()], chosen["lidar"]
            image, cloud = camera["datum"]["image"], lidar["datum"]["point_cloud"]
            frames.append(folder / image["filename"])
            clouds.append(folder / cloud["filename"])
            c2w.append(_pose(image["pose"]))
            lidar_poses.append(_pose(cloud["pose"]))
            times.append(np.datetime64(camera["id"]["timestamp"].rstrip("Z"), "us").astype(np.int64) * 1e-6)
        calibration = json.loads(
            (folder / "calibration" / f"{scene['samples'][0]['calibration_key']}.json").read_text(
                encoding="utf-8"
            )
        )
        k = calibration["intrinsics"][[label.lower() for label in calibration["names"]].index(CAMERA.lower())]
    except (KeyError, IndexError, ValueError, OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"expected a DGP scene with {CAMERA} and a lidar in {path}, got: {error!r}"
        ) from error
    absent = [file for file in (*frames, *clouds) if not file.is_file()]
    if absent:
        raise missing(READER, folder, f"{len(absent)} listed files are not there, first {absent[0].name}")
    rgb = rgb_frames(frames)
    size = (rgb.shape[1], rgb.shape[2])
    intrinsics = constant_intrinsics(len(frames), k["fx"], k["fy"], k["cx"], k["cy"], integer_centres=True)

    def depth(t: int) -> np.ndarray:
        points = load_npz(clouds[t], ["data"])["data"][:, :3].astype(np.float64)
        to_camera = invert_poses(c2w[t][None])[0] @ lidar_poses[t]
        return project_depth(points @ to_camera[:3, :3].T + to_camera[:3, 3], intrinsics[t], size)

    return Sequence(
        name=name,
        dataset="ddad",
        times_s=np.array(times),
        size=size,
        rgb=rgb,
        depth=LazyFrames((len(frames), *size), np.dtype(np.float32), depth),
        intrinsics=intrinsics,
        c2w=np.stack(c2w),
        depth_source="lidar (sparse)",
        pose_source="GPS and inertial",
        files=(*frames, *clouds, path),
    )


def project_depth(points: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] z-depth of camera-frame points, the nearest where several meet, NaN where none."""
    points = points[points[:, 2] > _MIN_DEPTH_M]
    pixels = points @ intrinsics.T
    column, row = (np.floor(pixels[:, axis] / pixels[:, 2]).astype(np.int64) for axis in (0, 1))
    inside = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
    column, row, z = column[inside], row[inside], points[inside, 2]
    order = np.argsort(-z)  # the nearest is written last
    depth = np.full(size, np.nan, np.float32)
    depth[row[order], column[order]] = z[order]
    return depth


READER = Reader(
    name="ddad",
    title="DDAD (DGP layout)",
    url="https://github.com/TRI-ML/DDAD (CC BY-NC-SA 4.0)",
    layout="ddad.json and NNNNNN/scene_*.json with calibration/, rgb/CAMERA_01/*.png, point_cloud/LIDAR/*.npz.",
    find=_find,
    load=_load,
)
