"""Camera paths: TUM and KITTI."""

import json
from pathlib import Path

import numpy as np

from geo4d.export.common import chosen_frames, conventions, frame_notes, poses_of
from geo4d.export.config import ExportConfig
from geo4d.formats.cameras import save_kitti_poses, save_tum
from geo4d.formats.files import new_file
from geo4d.types import Reconstruction


def save_trajectory_tum(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """TUM trajectory: ``t tx ty tz qx qy qz qw``, c2w."""
    frames = chosen_frames(reconstruction, config, one_world=True)
    comments = [f"{name}: {meaning}" for name, meaning in conventions(reconstruction, config).items()]
    comments.append("source frames: " + " ".join(str(int(reconstruction.source_frames[f])) for f in frames))
    comments.append("time_s tx ty tz qx qy qz qw")
    save_tum(
        path,
        np.asarray(reconstruction.times_s, np.float64)[frames],
        poses_of(reconstruction, frames),
        comments,
    )
    return [path]


def save_trajectory_kitti(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """KITTI poses (12 numbers a row, c2w) and, beside them, the times and conventions the format has no room for."""
    frames = chosen_frames(reconstruction, config, one_world=True)
    save_kitti_poses(path, poses_of(reconstruction, frames))
    sidecar = path.with_suffix(".json")
    notes = {
        "conventions": conventions(reconstruction, config),
        "frames": [frame_notes(reconstruction, f) for f in frames],
    }
    with new_file(sidecar) as temporary:
        temporary.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    return [path, sidecar]
