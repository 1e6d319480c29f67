"""A known trajectory of the camera, laid onto the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.datasets.readers.euroc import body_trajectory_camera
from geo4d.errors import InputError
from geo4d.formats.hashes import sha256_of
from geo4d.formats.trajectories import Trajectory
from geo4d.geometry.paths import poses_at

LONGEST_GAP_S = 0.1
"""Between two poses that are interpolated: a hand or a robot turns and moves evenly for so long."""

SAME_MOMENT_S = 0.005
"""A pose this near in time is that of the frame: at 1 m/s the camera moves by 5 mm."""

LEAST_MATCHED = 0.5
"""Share of the frames of a video that must find a pose."""


@dataclass(frozen=True, eq=False)
class FramePoses:
    """A trajectory at the times of frames.

    Attributes:
        c2w: [T, 4, 4] metres; NaN where it says nothing about a frame.
        source: the file, its layout and hash, JSON values.
        statement: how it was matched.
    """

    c2w: Float[Tensor, "T 4 4"]
    source: dict[str, Any]
    statement: str

    @property
    def matched(self) -> Bool[Tensor, " T"]:
        """True for frames with a pose."""
        return torch.isfinite(self.c2w).all(dim=(1, 2))

    def require_all(self) -> None:
        """
        Raises:
            InputError: a frame has no pose.
        """
        missing = (~self.matched).nonzero()[:, 0].tolist()
        if missing:
            names = ", ".join(str(t) for t in missing[:8]) + (", ..." if len(missing) > 8 else "")
            raise InputError(
                f"expected a pose for every frame, but {len(missing)} of {len(self.c2w)} have none ({names}): they lie "
                f"in gaps of more than {LONGEST_GAP_S} s or beyond the ends; leave these frames out with --start and "
                "--stop, or take the scale only (geo4d reconstruct --trajectory-use scale)"
            )


def frame_poses(
    trajectory: Trajectory,
    times_s: np.ndarray,
    source_frames: np.ndarray,
    num_source_frames: int | None,
    video: Path | None,
    offset_s: float = 0.0,
) -> FramePoses:
    """The poses of a trajectory at the frames of a video: by time, or row by row where the file has no times.

    Args:
        times_s: of the frames, seconds.
        source_frames: their numbers in the source.
        num_source_frames: frames of the source; None where that is not known.
        video: the source, which tells the camera that a EuRoC ground truth is taken to.
        offset_s: added to the times of the trajectory.
    Raises:
        InputError: fewer than half of the frames find a pose, the number of rows does not fit, or all poses are in one
            place.
    """
    path, poses = trajectory.path, torch.from_numpy(trajectory.poses)
    notes = [f"{path.name} ({trajectory.layout})"]
    if trajectory.layout == "EuRoC":
        camera = body_trajectory_camera(path, video)
        if camera is None:
            notes.append(
                "taken as poses of the camera itself, since no sensor.yaml tells where it sits on the body"
            )
        else:
            poses = poses @ torch.from_numpy(camera[1])
            notes.append(f"poses of the body, taken to {camera[0]} by T_BS of its sensor.yaml")
    if trajectory.times_s is None:
        c2w, how = _by_row(poses, source_frames, num_source_frames, path)
    else:
        stamps = torch.from_numpy(trajectory.times_s + offset_s)
        c2w = poses_at(
            stamps, poses, torch.from_numpy(times_s), longest_gap_s=LONGEST_GAP_S, same_s=SAME_MOMENT_S
        )
        how = f"interpolated between poses at most {LONGEST_GAP_S} s apart"
    matched = torch.isfinite(c2w).all(dim=(1, 2))
    count = int(matched.sum())
    if count < max(LEAST_MATCHED * len(c2w), 1):
        raise _too_few(trajectory, times_s, offset_s, count)
    centres = c2w[matched][:, :3, 3]
    if len(centres) > 1 and float((centres - centres[0]).norm(dim=1).max()) == 0:
        raise InputError(
            f"{path} stays in one place, so that it says nothing about the scale; expected a path that moves"
        )
    notes.append(f"poses for {count} of {len(c2w)} frames, {how}")
    source = {
        "file": path.name,
        "layout": trajectory.layout,
        "sha256": sha256_of(path),
        "time_offset_s": offset_s,
    }
    return FramePoses(c2w, {**source, "matched_frames": count}, "; ".join(notes))


def _by_row(
    poses: Tensor, source_frames: np.ndarray, num_source: int | None, path: Path
) -> tuple[Tensor, str]:
    if len(poses) == num_source or (num_source is None and len(poses) > int(source_frames.max())):
        return poses[
            torch.from_numpy(np.asarray(source_frames, np.int64))
        ], "one row for each frame of the source"
    if len(poses) == len(source_frames):
        return poses, "one row for each frame in use"
    source = "" if num_source is None else f"{num_source} "
    raise InputError(
        f"expected one row for each of the {source}frames of the source (or of the {len(source_frames)} in use) in "
        f"{path}, which has no times, got {len(poses)}; a TUM file is matched by time"
    )


def _too_few(trajectory: Trajectory, times_s: np.ndarray, offset_s: float, count: int) -> InputError:
    stamps = trajectory.times_s
    where = ""
    if stamps is not None:
        where = (
            f"; the frames' times run from {times_s[0]:.3f} to {times_s[-1]:.3f} s, those of the trajectory from "
            f"{stamps[0] + offset_s:.3f} to {stamps[-1] + offset_s:.3f} s, {np.median(np.diff(stamps)):.3g} s apart: "
            "--time-offset SECONDS moves them, --times FILE gives times to a folder of pictures"
            if len(stamps) > 1
            else ""
        )
    return InputError(
        f"expected poses for at least half of the {len(times_s)} frames in {trajectory.path}, found {count} (between "
        f"poses at most {LONGEST_GAP_S} s apart, or within {SAME_MOMENT_S} s of one){where}"
    )
