"""Camera paths in text files: TUM, KITTI, rows of matrices, one camera a file.

Every function states the convention of the file; ours is camera to world, OpenCV axes, pixel centres at +0.5.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from geo4d.errors import InputError
from geo4d.formats.files import existing_file, new_file
from geo4d.geometry.poses import (
    inverse,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rigid,
    wxyz_to_xyzw,
    xyzw_to_wxyz,
)

Poses = Float[np.ndarray, "T 4 4"]


def quaternions_to_poses(
    translation: Float[np.ndarray, "T 3"], quaternion_wxyz: Float[np.ndarray, "T 4"]
) -> Poses:
    """[T, 4, 4] float64 from translations and quaternions ``wxyz``."""
    rotation = quaternion_to_matrix(torch.from_numpy(np.asarray(quaternion_wxyz, np.float64)))
    return rigid(rotation, torch.from_numpy(np.asarray(translation, np.float64))).numpy()


def poses_to_quaternions(poses: Poses) -> Float[np.ndarray, "T 4"]:
    """Quaternions ``wxyz`` of the rotations."""
    return matrix_to_quaternion(torch.from_numpy(np.asarray(poses[:, :3, :3], np.float64))).numpy()


def invert_poses(poses: Poses) -> Poses:
    """``c2w`` from ``w2c`` and back."""
    return inverse(torch.from_numpy(np.asarray(poses, np.float64))).numpy()


def load_tum(path: str | Path) -> tuple[Float[np.ndarray, " T"], Poses]:
    """Times in seconds and ``c2w`` of a TUM trajectory: rows ``t tx ty tz qx qy qz qw``; # starts a comment.

    Raises:
        InputError: missing, wrong number of columns, or not numbers.
    """
    rows = load_rows(path, 8, "TUM trajectory (t tx ty tz qx qy qz qw)")
    quaternion = xyzw_to_wxyz(torch.from_numpy(rows[:, 4:8])).numpy()
    if (np.linalg.norm(quaternion, axis=1) < 1e-6).any():
        raise InputError(f"expected unit quaternions in {path}, got one of length 0")
    return rows[:, 0].copy(), quaternions_to_poses(rows[:, 1:4], quaternion)


def save_tum(
    path: str | Path, times_s: Float[np.ndarray, " T"], c2w: Poses, comments: Sequence[str] = ()
) -> None:
    """Write ``c2w`` as a TUM trajectory; ``comments`` become # lines on top."""
    quaternion = wxyz_to_xyzw(torch.from_numpy(poses_to_quaternions(c2w))).numpy()
    rows = np.concatenate([np.asarray(times_s, np.float64)[:, None], c2w[:, :3, 3], quaternion], axis=1)
    _save_rows(path, rows, comments)


def load_kitti_poses(path: str | Path) -> Poses:
    """``c2w`` of a KITTI odometry pose file: rows of 12 numbers, row-major 3x4.

    Raises:
        InputError: missing, wrong number of columns, or not numbers.
    """
    rows = load_rows(path, 12, "KITTI poses (12 numbers a row)")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    return poses


def save_kitti_poses(path: str | Path, c2w: Poses) -> None:
    """Write ``c2w`` as KITTI poses (the format has no room for comments or times)."""
    _save_rows(path, np.asarray(c2w, np.float64)[:, :3].reshape(-1, 12), ())


def load_rows(path: str | Path, columns: int, what: str) -> np.ndarray:
    """[rows, columns] float64 of a text file of numbers, parted by blanks or commas; ``#`` starts a comment.

    Raises:
        InputError: missing, not numbers, no rows, or a row of another length.
    """
    path = existing_file(path, f"a {what}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise InputError(
                f"expected numbers in line {number} of {path}, got {line.strip()[:60]!r}"
            ) from error
        if len(values) != columns:
            raise InputError(
                f"expected {columns} numbers in line {number} of {path} ({what}), got {len(values)}"
            )
        rows.append(values)
    if not rows:
        raise InputError(f"expected a {what} in {path}, got no rows")
    return np.array(rows, np.float64)


def _save_rows(path: str | Path, rows: np.ndarray, comments: Sequence[str]) -> None:
    with new_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"# {comment}\n" for comment in comments)
        file.writelines(" ".join(f"{value:.17g}" for value in row) + "\n" for row in rows)


def load_cam(path: str | Path) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]:
    """Intrinsics (as stored) and ``c2w`` of a Sintel .cam file, which stores ``w2c``.

    Raises:
        InputError: missing, wrong tag, or truncated.
    """
    data = existing_file(path, "a .cam file").read_bytes()
    if len(data) < 172 or np.frombuffer(data[:4], "<f4")[0] != np.float32(202021.25):
        raise InputError(
            f"expected a .cam file with tag 202021.25 and 172 bytes, got {len(data)} bytes in {path}"
        )
    intrinsics = np.frombuffer(data[4:76], "<f8").reshape(3, 3).copy()
    w2c = np.eye(4)
    w2c[:3] = np.frombuffer(data[76:172], "<f8").reshape(3, 4)
    return intrinsics, invert_poses(w2c[None])[0]
