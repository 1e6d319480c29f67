"""``geo4d export``: a reconstruction as the files of other tools."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from geo4d.apps.commands.reconstruct import PLACE

EXAMPLES = (
    "geo4d export OUT --format usd -o shot.usdc --up z --reference 400,300,900,320,0,2.5",
    "geo4d export OUT --format mcap -o out.mcap --frames 0:100:2",
)


def describe() -> str:
    """What ``--help`` says first: every format with its suffixes."""
    from geo4d.errors import PluginError
    from geo4d.export import find_format, format_names

    lines = []
    for name in format_names():
        try:
            format = find_format(name)
            lines.append(f"  {name:<11} {format.holds}; {' '.join(format.suffixes) or 'a folder'}")
        except PluginError as error:
            lines.append(f"  {name:<11} broken: {error}")
    return "\n".join(
        [
            "Write a reconstruction as files of another tool.",
            "",
            "Formats:",
            *lines,
        ]
    )


def _format_choices() -> Any:
    from geo4d.export import format_names

    return tyro.extras.literal_type_from_choices(format_names())


@dataclass(frozen=True)
class ExportOptions:
    """Write a reconstruction as files of another tool."""

    result: Annotated[Path | str, PLACE, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder that 'geo4d reconstruct' wrote, or an address in an object store."""
    format: Annotated[str, tyro.conf.arg(constructor_factory=_format_choices)]
    """What to write."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="PATH")]
    """The file itself if it carries the format's suffix, else a folder."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace files, and folders that an export wrote; what others put into such a folder stays."""
    frames: Annotated[str | None, tyro.conf.arg(metavar="FRAMES")] = None
    """Frames of the reconstruction: 'START:STOP[:STEP]' or '0,5,9'; all if not given."""
    scene: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Scene number, for videos with shot cuts."""
    up: Annotated[Literal["camera", "y", "z"] | None, tyro.conf.arg(metavar="{camera,y,z}")] = None
    """Axes of the world: as the camera (+y down), y up as glTF, or z up as Blender; if not given, those of the format."""
    scale: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """Multiply every length by this."""
    reference: Annotated[str | None, tyro.conf.arg(metavar="X1,Y1,X2,Y2,FRAME,METRES")] = None
    """A known length, in place of a scale: two pixels of the maps in a frame, and the metres between what they show."""
    min_confidence: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
    """Leave out points below this confidence, in [0, 1]; if not given, one that keeps most of the depth."""
    edge_step: Annotated[float, tyro.conf.arg(metavar="STEP")] = 0.1
    """Leave out points at relative depth jumps above this; 0 keeps them."""
    voxel_size: Annotated[float, tyro.conf.arg(metavar="LENGTH")] = 0.0
    """Keep one point per cube of this edge, in the unit of the export; 0 keeps all."""
    max_points: Annotated[int, tyro.conf.arg(metavar="N")] = 5_000_000
    """Points of a file that holds all frames (PLY, GLB, USD, rerun); more are thinned at random, 0 keeps all."""
    precision: Literal["half", "float"] = "float"
    """Of EXR and npz values."""
    per_frame: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A GLB file with one named node for every frame, shown at its time, instead of one for all."""
    points_per_frame: Annotated[int, tyro.conf.arg(metavar="N")] = 2000
    """Points sampled per frame where nothing moves (COLMAP, nerfstudio, USD); fewer where --most-points ends it."""
    most_points: Annotated[int, tyro.conf.arg(metavar="N")] = 200_000
    """The same over all frames, at most: what splatting starts from."""
    images: Annotated[Literal["maps", "source"], tyro.conf.arg(metavar="{maps,source}")] = "maps"
    """Pictures and masks of COLMAP and nerfstudio: as large as the maps, or as the source (which must be there)."""
    alpha: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """COLMAP pictures with an alpha channel, 0 where something moves: the masks of graphdeco's code."""
    first_frame: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Number of the first frame on the time line of USD and Nuke files, such as 1001."""


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
    from geo4d.export import ExportConfig, Reference, save

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
        scale=options.scale,
        reference=None if options.reference is None else Reference.parse(options.reference),
        per_frame=options.per_frame,
        points_per_frame=options.points_per_frame,
        most_points=options.most_points,
        images=options.images,
        alpha=options.alpha,
        first_frame=options.first_frame,
    )
    for path in save(reconstruction, options.output, options.format, config, overwrite=options.overwrite):
        print(f"wrote {path}")
    return 0
