"""Trajectories as robots write them: TUM, KITTI and EuRoC files, told apart by their columns.

Every layout holds poses of the camera in a world, ``c2w`` with OpenCV axes; the csv of EuRoC's ground truth holds those
of the body, which ``run.frame_poses`` takes to a camera.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from geo4d.errors import InputError
from geo4d.formats.cameras import load_kitti_poses, load_tum, quaternions_to_poses
from geo4d.formats.files import existing_file

Layout = Literal["TUM", "KITTI", "EuRoC"]

_NANOSECONDS_FROM = 1e15
"""Times from here on are nanoseconds: as seconds they would be 32 million years."""

_EUROC_COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of a camera from somewhere else.

    Attributes:
        path: the file.
        layout: of the file.
        poses: [N, 4, 4] camera (EuRoC: body) to world, float64, metres.
        times_s: [N] seconds, strictly increasing; None where the file has one pose a frame and no times (KITTI).
    """

    path: Path
    layout: Layout
    poses: Float[np.ndarray, "N 4 4"]
    times_s: Float[np.ndarray, " N"] | None


def load_trajectory(path: str | Path) -> Trajectory:
    """Poses from a file: 8 numbers a row (TUM: time in seconds, position, quaternion xyzw), 12 (KITTI), or commas
    between them and times in nanoseconds (EuRoC: time, position, quaternion wxyz, and what follows).

    Raises:
        InputError: missing, none of these, not finite, or times that do not increase.
    """
    path = existing_file(path, "a trajectory (TUM, KITTI poses, EuRoC csv)")
    words, commas = _first_row(path)
    times_s: np.ndarray | None = None
    if commas and len(words) >= _EUROC_COLUMNS and words[0] >= _NANOSECONDS_FROM:
        layout: Layout = "EuRoC"
        times_s, poses = _load_euroc(path)
    elif len(words) == 12:
        layout, poses = "KITTI", load_kitti_poses(path)
        _require_rigid(path, poses)
    elif len(words) == 8:
        layout = "TUM"
        times_s, poses = load_tum(path)
        if abs(times_s[0]) >= _NANOSECONDS_FROM:
            raise InputError(f"expected times in seconds in {path} (TUM), got {words[0]:.17g}: nanoseconds?")
    else:
        raise InputError(
            f"expected 8 numbers a row (TUM: t tx ty tz qx qy qz qw), 12 (KITTI) or a EuRoC csv (time in ns, position, "
            f"quaternion wxyz) in {path}, got {len(words)} in its first row"
        )
    if not np.isfinite(poses).all() or (times_s is not None and not np.isfinite(times_s).all()):
        raise InputError(f"expected finite numbers in {path}, got others")
    if times_s is not None:
        back = np.flatnonzero(np.diff(times_s) <= 0)
        if len(back):
            raise InputError(
                f"expected increasing times in {path}, but {times_s[back[0] + 1]:.6f} s follows {times_s[back[0]]:.6f} s"
            )
    return Trajectory(path, layout, poses, times_s)


def _first_row(path: Path) -> tuple[list[float], bool]:
    """The numbers of the first row, and whether commas part them; no numbers where it holds something else."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.split("#", 1)[0].strip()
            if not text:
                continue
            try:
                return [float(word) for word in text.replace(",", " ").split()], "," in text
            except ValueError as error:
                raise InputError(f"expected numbers in {path}, got {text[:60]!r}") from error
    raise InputError(f"expected poses in {path}, got no rows")


def _load_euroc(path: Path) -> tuple[np.ndarray, np.ndarray]:
    stamps, rows = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = [word.strip() for word in line.split("#", 1)[0].split(",")]
        if words == [""]:
            continue
        try:
            stamps.append(int(words[0]) / 10**9)
            rows.append([float(word) for word in words[1:_EUROC_COLUMNS]])
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"expected a time in whole nanoseconds and numbers in line {number} of {path}, got {line.strip()[:60]!r}"
            ) from error
        if len(rows[-1]) != _EUROC_COLUMNS - 1:
            raise InputError(
                f"expected {_EUROC_COLUMNS} or more numbers in line {number} of {path}, got {len(words)}"
            )
    values = np.array(rows, np.float64)
    if (np.linalg.norm(values[:, 3:], axis=1) < 1e-6).any():
        raise InputError(f"expected unit quaternions in {path}, got one of length 0")
    return np.array(stamps), quaternions_to_poses(values[:, :3], values[:, 3:])


def _require_rigid(path: Path, poses: np.ndarray) -> None:
    if not np.isfinite(poses).all():
        raise InputError(f"expected finite numbers in {path}, got others")
    product = poses[:, :3, :3] @ poses[:, :3, :3].swapaxes(1, 2)
    off = np.abs(product - np.eye(3)).max(axis=(1, 2)) > 1e-2
    if off.any() or (np.linalg.det(poses[:, :3, :3]) < 0).any():
        row = int(np.argmax(off))
        raise InputError(
            f"expected rotations in the 3x3 part of the rows of {path}, got another matrix in row {row + 1}"
        )
