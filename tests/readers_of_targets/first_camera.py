"""Is the world of an export the first camera? One check for every format that carries poses, by the target's own rule."""

import json
from pathlib import Path

import numpy as np

from tests.readers_of_targets import colmap, exr, gltf, nerfstudio, ply

FORMATS = ("npz", "exr", "ply", "glb", "tum", "kitti", "colmap", "nerfstudio")


def first_c2w(path: Path, format: str, intrinsics: np.ndarray | None = None) -> np.ndarray:
    """c2w [4, 4] in OpenCV axes of the first frame of an export that starts with the first frame of a scene.

    Args:
        path: what ``geo4d.export.save`` was given, with the format's suffix, or a folder for exr, colmap, nerfstudio.
        intrinsics: [3, 3] of the first frame; for point clouds, whose pose is that which puts points onto their pixels.
    """
    if format == "npz":
        with np.load(path) as data:
            return data["c2w"][0]
    if format == "exr":
        channels, header = exr.load(sorted(path.glob("*.exr"))[0])
        c2w = np.array(json.loads(header["geo4d_c2w_matrix"]))
        K = np.array(json.loads(header["geo4d_intrinsics_matrix"]))
        points = np.stack([channels[f"position.{axis}"] for axis in "XYZ"], axis=-1)
        y, x = np.indices(points.shape[:2]) + 0.5
        z = channels["Z"]
        camera = np.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z], axis=-1)
        valid = np.isfinite(z)
        world = camera[valid] @ c2w[:3, :3].T + c2w[:3, 3]
        np.testing.assert_allclose(points[valid], world, rtol=2e-3, atol=1e-3)
        return c2w
    if format in ("ply", "glb"):
        assert intrinsics is not None
        if format == "ply":
            fields = ply.load(path)
            points = np.stack([fields[name] for name in "xyz"], axis=1)[
                fields["frame"] == fields["frame"].min()
            ]
        else:
            points = gltf.load(path)[1][0].points * [1, -1, -1]
        return _pose_of_points(points, intrinsics)
    if format == "tum":
        row = np.loadtxt(path)[0]
        x, y, z, w = row[4:]
        c2w = np.eye(4)
        c2w[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        c2w[:3, 3] = row[1:4]
        return c2w
    if format == "kitti":
        return np.vstack([np.loadtxt(path)[0].reshape(3, 4), [0, 0, 0, 1]])
    if format == "colmap":
        model = colmap.load(path)
        return colmap.world_from_camera(min(model.images.values(), key=lambda image: image.name))
    if format == "nerfstudio":
        scene = nerfstudio.load(path)
        return scene.saved_c2w[0] @ np.diag([1.0, -1, -1, 1])
    raise ValueError(format)


def _pose_of_points(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Identity when every point lies on the ray of a pixel centre of a camera at the origin, else NaN."""
    pixels = (points / points[:, 2:]) @ intrinsics.T
    off_centre = np.abs(pixels[:, :2] - 0.5 - np.round(pixels[:, :2] - 0.5)).max()
    return np.eye(4) if (points[:, 2] > 0).all() and off_centre < 0.02 else np.full((4, 4), np.nan)


def assert_world_is_first_camera(path: Path, format: str, intrinsics: np.ndarray | None = None) -> None:
    """Fails unless the first camera of the export is the origin of its world within 1e-4."""
    np.testing.assert_allclose(first_c2w(path, format, intrinsics), np.eye(4), atol=1e-4)
