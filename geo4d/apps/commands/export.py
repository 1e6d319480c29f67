"""``geo4d export``: a reconstruction as the files of other tools."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class ExportOptions:
    """Write a reconstruction as files of another tool."""

    result: Annotated[Path, tyro.conf.Positional]
    """Folder that 'geo4d reconstruct' wrote."""
    format: Literal["npz", "exr", "png", "ply", "glb", "tum", "kitti", "colmap", "nerfstudio", "preview"]
    """What to write."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file itself if it carries the format's suffix, else a folder."""
    frames: str | None = None
    """Frames of the reconstruction: 'START:STOP[:STEP]' or '0,5,9'; all if not given."""
    scene: int | None = None
    """Scene number, for videos with shot cuts."""
    min_confidence: float | None = None
    """Leave out points below this confidence, in [0, 1]; if not given, one that keeps most of the depth."""
    edge_step: float = 0.1
    """Leave out points at relative depth jumps above this; 0 keeps them."""
    voxel_size: float = 0.0
    """Keep one point per cube of this edge, in the unit of the reconstruction; 0 keeps all."""
    max_points: int = 5_000_000
    """Points of a PLY or GLB file that holds all frames; more are thinned at random, 0 keeps all."""
    precision: Literal["half", "float"] = "float"
    """Of EXR and npz values."""
    up: Literal["camera", "y", "z"] = "camera"
    """Axes of a PLY file: as the camera (+y down), y up as glTF, or z up as Blender."""
    per_frame: bool = False
    """A GLB file with one named node for every frame, instead of one for all."""
    points_per_frame: int = 2000
    """Points sampled per frame for COLMAP and nerfstudio; fewer in videos of more than 100 frames."""


def parse_frames(text: str, num_frames: int) -> tuple[int, ...]:
    """'START:STOP[:STEP]' or a comma-separated list, as frame numbers.

    Raises:
        ValueError: neither form.
    """
    try:
        if ":" in text:
            parts = [int(part) if part else None for part in text.split(":")]
            return tuple(range(num_frames)[slice(*parts)])
        return tuple(int(part) for part in text.split(","))
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected frames as START:STOP[:STEP] or 0,5,9, got {text!r}") from error


def run(options: ExportOptions) -> int:
    """Load, write, say how much was kept and name what was written."""
    import geo4d
    from geo4d.export import ExportConfig, save

    log = logging.getLogger("geo4d.export")
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)

    reconstruction = geo4d.load(options.result)
    config = ExportConfig(
        frames=None if options.frames is None else parse_frames(options.frames, reconstruction.num_frames),
        scene=options.scene,
        min_confidence=options.min_confidence,
        edge_step=options.edge_step,
        voxel_size=options.voxel_size,
        max_points=options.max_points,
        precision=options.precision,
        up=options.up,
        per_frame=options.per_frame,
        points_per_frame=options.points_per_frame,
    )
    for path in save(reconstruction, options.output, options.format, config):
        print(f"wrote {path}")
    return 0
