"""What a user may ask of an export."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Up = Literal["camera", "y", "z"]

AXES: dict[str, tuple[np.ndarray, str]] = {
    "camera": (np.eye(3), "+x right, +y down, +z forward (OpenCV)"),
    "y": (np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]), "+x right, +y up, +z backward (as glTF)"),
    "z": (np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), "+x right, +y forward, +z up (as Blender)"),
}
"""For every ``--up``: the rotation from OpenCV axes to those of the file, and their names."""


@dataclass(frozen=True)
class Reference:
    """A length that is known in the scene, between what two pixels of one frame show.

    Attributes:
        first, second: (x, y) in pixels of the maps; the centre of the first pixel is (0.5, 0.5).
        frame: position in the reconstruction.
        metres: the length.
    """

    first: tuple[float, float]
    second: tuple[float, float]
    frame: int
    metres: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.metres) and self.metres > 0):
            raise ValueError(f"expected a reference length > 0 m, got {self.metres}")

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """``x1,y1,x2,y2,FRAME,METRES`` as a reference.

        Raises:
            ValueError: another form.
        """
        try:
            x1, y1, x2, y2, frame, metres = text.split(",")
            values = (float(x1), float(y1)), (float(x2), float(y2)), int(frame), float(metres)
        except ValueError as error:
            raise ValueError(f"expected a reference as x1,y1,x2,y2,FRAME,METRES, got {text!r}") from error
        return cls(*values)

    def words(self) -> str:
        """For the files that are written."""
        (x1, y1), (x2, y2) = self.first, self.second
        return f"pixels {x1:g},{y1:g} and {x2:g},{y2:g} of frame {self.frame} are {self.metres:g} m apart"


@dataclass(frozen=True)
class ExportConfig:
    """What goes into an export.

    Attributes:
        frames: positions in the reconstruction to export; None takes all (of ``scene``).
        scene: number of the scene, for world-frame formats when a video has shot cuts; None if there is only one.
        min_confidence: points below are left out, in [0, 1]; None takes ``kept.default_confidence_threshold``.
        edge_step: points at depth jumps above this relative step are left out; 0 keeps them.
        voxel_size: keep one point per cube of this edge, in the unit of the exported points; 0 keeps all.
        max_points: of a file that holds the points of all frames (PLY, GLB, USD, rerun); more are thinned at random; 0
            keeps all.
        precision: of EXR and npz values.
        up: axes of the world: ``camera`` as everything here (+y down), ``y`` as glTF, ``z`` as Blender; up is that of
            the first camera, not of gravity. None takes what the format wants.
        scale: every length of the result is multiplied by this.
        reference: a known length, which makes the result metric; in place of ``scale``.
        per_frame: a GLB file with one node for every frame, shown at its time, instead of one for all.
        points_per_frame: points sampled per frame where nothing moves, for COLMAP, nerfstudio and the static points of
            USD; fewer where all frames together would exceed ``most_points``.
        most_points: sampled over all frames, at most, for the same.
        images: of COLMAP and nerfstudio folders: as large as the ``maps``, or as the ``source``.
        alpha: COLMAP pictures have an alpha channel, 0 and black where something moves, as graphdeco's code wants it.
        first_frame: number of the first frame on the time line of USD and Nuke files.
        seed: of that sampling.
        metres_per_unit: of the exported lengths; None where unknown. ``save`` fills it in.
    """

    frames: tuple[int, ...] | None = None
    scene: int | None = None
    min_confidence: float | None = None
    edge_step: float = 0.1
    voxel_size: float = 0.0
    max_points: int = 5_000_000
    precision: Literal["half", "float"] = "float"
    up: Up | None = None
    scale: float = 1.0
    reference: Reference | None = None
    per_frame: bool = False
    points_per_frame: int = 2000
    most_points: int = 200_000
    images: Literal["maps", "source"] = "maps"
    alpha: bool = False
    first_frame: int = 1
    seed: int = 0
    metres_per_unit: float | None = None

    def __post_init__(self) -> None:
        if self.max_points < 0 or self.points_per_frame < 1:
            raise ValueError(
                f"expected max_points >= 0 and points_per_frame >= 1, got {self.max_points} and {self.points_per_frame}"
            )
        if self.most_points < 1:
            raise ValueError(f"expected most_points >= 1, got {self.most_points}")
        if self.images not in ("maps", "source"):
            raise ValueError(f"expected images maps or source, got {self.images!r}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"expected a min_confidence in [0, 1], got {self.min_confidence}")
        if not (self.edge_step >= 0 and self.voxel_size >= 0):
            raise ValueError(
                f"expected edge_step and voxel_size >= 0, got {self.edge_step} and {self.voxel_size}"
            )
        if self.up is not None and self.up not in AXES:
            raise ValueError(f"expected up out of {', '.join(AXES)}, got {self.up!r}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"expected a scale > 0, got {self.scale}")
        if self.reference is not None and self.scale != 1 and self.metres_per_unit is None:
            raise ValueError(
                "expected a scale or a reference length, got both; a reference length is a scale"
            )

    @property
    def rotation(self) -> np.ndarray:
        """[3, 3] from the world of the result to that of the files."""
        return AXES[self.up or "camera"][0]
