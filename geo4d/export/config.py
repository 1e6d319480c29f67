"""What a user may ask of an export."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Up = Literal["camera", "y", "z"]

AXES: dict[str, tuple[np.ndarray, str]] = {
    "camera": (np.eye(3), "+x right, +y down, +z forward (OpenCV)"),
    "y": (np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]]), "+x right, +y up, +z backward (as glTF)"),
    "z": (np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]), "+x right, +y forward, +z up (as Blender)"),
}
"""For every ``--up``: the rotation from OpenCV axes to those of the file, and their names."""


@dataclass(frozen=True)
class ExportConfig:
    """What goes into an export.

    Attributes:
        frames: positions in the reconstruction to export; None takes all (of ``scene``).
        scene: number of the scene, for world-frame formats when a video has shot cuts; None if there is only one.
        min_confidence: points below are left out, in [0, 1]; None takes ``kept.default_confidence_threshold``.
        edge_step: points at depth jumps above this relative step are left out; 0 keeps them.
        voxel_size: keep one point per cube of this edge, in the unit of the points; 0 keeps all.
        max_points: of a PLY or GLB file that holds all frames; more are thinned at random; 0 keeps all.
        precision: of EXR and npz values.
        up: axes of a PLY file: ``camera`` as everything here (+y down), ``y`` as glTF, ``z`` as Blender; up is that of
            the first camera, not of gravity.
        per_frame: a GLB file with one node for every frame, by name, instead of one for all.
        points_per_frame: points sampled per frame for COLMAP; fewer in long videos, see ``MOST_SAMPLED``.
        seed: of that sampling.
    """

    frames: tuple[int, ...] | None = None
    scene: int | None = None
    min_confidence: float | None = None
    edge_step: float = 0.1
    voxel_size: float = 0.0
    max_points: int = 5_000_000
    precision: Literal["half", "float"] = "float"
    up: Up = "camera"
    per_frame: bool = False
    points_per_frame: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_points < 0 or self.points_per_frame < 1:
            raise ValueError(
                f"expected max_points >= 0 and points_per_frame >= 1, got {self.max_points} and {self.points_per_frame}"
            )
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"expected a min_confidence in [0, 1], got {self.min_confidence}")
        if not (self.edge_step >= 0 and self.voxel_size >= 0):
            raise ValueError(
                f"expected edge_step and voxel_size >= 0, got {self.edge_step} and {self.voxel_size}"
            )
        if self.up not in AXES:
            raise ValueError(f"expected up out of {', '.join(AXES)}, got {self.up!r}")
