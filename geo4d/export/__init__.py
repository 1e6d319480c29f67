"""A ``Reconstruction`` as the files of other tools: a dict of formats, each one function.

Every export is complete or absent, works frame by frame in bounded memory, and states its conventions: in the file where
the format has room, and in a ``README.txt`` beside the files of a folder.
"""

from dataclasses import replace
from pathlib import Path

from geo4d.export.colmap import save_scene_colmap
from geo4d.export.common import chosen_frames, conventions, is_file
from geo4d.export.config import ExportConfig, Reference, Up
from geo4d.export.format import Format
from geo4d.export.glb import save_points_glb
from geo4d.export.maps import save_depth_exr, save_depth_png, save_npz
from geo4d.export.movie import save_preview
from geo4d.export.nerfstudio import nerfstudio_scale, save_scene_nerfstudio
from geo4d.export.nuke import save_nuke, save_nuke_chan
from geo4d.export.placement import placed
from geo4d.export.plugins import load_plugin, plugin_points
from geo4d.export.points import MOST_SAMPLED, iter_point_clouds, save_points_ply
from geo4d.export.recording import save_recording
from geo4d.export.trajectories import save_trajectory_kitti, save_trajectory_tum
from geo4d.export.usd import save_usd
from geo4d.formats.files import all_or_nothing
from geo4d.types import Reconstruction

__all__ = [
    "FORMATS",
    "ExportConfig",
    "Format",
    "Reference",
    "Up",
    "chosen_frames",
    "conventions",
    "find_format",
    "format_names",
    "iter_point_clouds",
    "most_bytes",
    "nerfstudio_scale",
    "save",
]

FORMATS: dict[str, Format] = {
    "npz": Format(
        save_npz, "depth, confidence, cameras and times as arrays",
        (".npz",), file_name="geometry.npz", bytes_per_pixel=12,
    ),
    "exr": Format(
        save_depth_exr, "colour, depth, what moves, confidence and world points, a file a frame",
        (".exr",), bytes_per_pixel=36,
    ),
    "png": Format(save_depth_png, "16-bit depth, a file a frame", (".png",), bytes_per_pixel=2),
    "ply": Format(save_points_ply, "points, colours, confidence", (".ply",), bytes_per_pixel=27),
    "glb": Format(
        save_points_glb, "points and the moving camera, in glTF axes", (".glb",), ups=("y",), bytes_per_pixel=24,
    ),
    "usd": Format(
        save_usd, "scene with camera, lens, points and plate (extra usd)",
        (".usdc", ".usdz", ".usda", ".usd"), file_name="scene.usdc", ups=("y", "z"), bytes_per_pixel=40,
    ),
    "nuke": Format(
        save_nuke, "Nuke script with camera, lens and plate",
        (".nk",), file_name="camera.nk", ups=("y",), bytes_per_pixel=4,
    ),
    "chan": Format(save_nuke_chan, "camera path for Nuke", (".chan",), file_name="camera.chan", ups=("y",)),
    "tum": Format(
        save_trajectory_tum, "camera path: time, position, quaternion",
        (".txt", ".tum"), file_name="trajectory_tum.txt",
    ),
    "kitti": Format(
        save_trajectory_kitti, "camera path: 3x4 matrices",
        (".txt", ".kitti"), file_name="trajectory_kitti.txt",
    ),
    "colmap": Format(
        save_scene_colmap, "folder for COLMAP-based tools: pictures, masks, cameras, points",
        bytes_per_pixel=5, bytes_per_point=1000,
    ),
    "nerfstudio": Format(
        save_scene_nerfstudio, "folder for nerfstudio: pictures, masks, depth, cameras, points",
        bytes_per_pixel=8, bytes_per_point=1000,
    ),
    "rrd": Format(
        save_recording, "recording for the rerun viewer (extra rerun)",
        (".rrd",), file_name="scene.rrd", bytes_per_pixel=32,
    ),
    "preview": Format(
        save_preview, "movie of picture, depth and confidence side by side",
        (".mp4",), file_name="preview.mp4", bytes_per_pixel=3,
    ),
}  # fmt: skip
"""Every format by its name, in the order in which they are listed."""


def format_names() -> list[str]:
    """Names of all formats, those of installed plug-ins behind ours; no plug-in is loaded."""
    return [*FORMATS, *plugin_points(FORMATS)]


def find_format(name: str) -> Format:
    """A format by its name.

    Raises:
        ValueError: there is none of that name.
        PluginError: it belongs to a package whose code cannot be used.
    """
    if name in FORMATS:
        return FORMATS[name]
    points = plugin_points(FORMATS)
    if name not in points:
        raise ValueError(f"expected one of {', '.join([*FORMATS, *points])} as the format, got {name!r}")
    return load_plugin(points[name])


def save(
    reconstruction: Reconstruction,
    path: str | Path,
    format: str,
    config: ExportConfig | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``reconstruction`` as ``format``.

    Args:
        path: the file itself when it carries one of the format's suffixes, else a folder that gets documented names.
        format: a name of ``format_names``.
        config: what goes into it; None takes the defaults.
        overwrite: replace what is there: files of the same names, and folders that an export wrote; files that others
            put there stay.
    Returns:
        the files and folders written.
    Raises:
        ValueError: unknown format, a suffix of another one, frames out of range, the reconstruction lacks what the format
            needs, an option that the format has no use for, or filters that leave no point of a point cloud.
        GeometryError: a point cloud of frames that have no depth at all.
        PluginError: the format's package cannot be used.
        MissingExtraError: the format needs a package that is not installed.
        OutputError: ``path`` exists already or cannot be written.
    """
    path, chosen = Path(path), find_format(format)
    config = _fitting(config or ExportConfig(), path, format, chosen)
    shown, config = placed(reconstruction, config)
    joins = chosen.file_name is not None
    needed = most_bytes(reconstruction, chosen, config)
    with all_or_nothing(path, needed, into_folder=joins, overwrite=overwrite) as place:
        target = place
        if chosen.file_name is not None and not is_file(path, *chosen.suffixes):
            target = place / chosen.file_name
            target.parent.mkdir()
        written = chosen.write(shown, target, config)
    return [path.parent / file.relative_to(place.parent) for file in written]


def _fitting(config: ExportConfig, path: Path, name: str, format: Format) -> ExportConfig:
    """The config with the axes that the format takes, after options and suffix were compared with the format.

    Raises:
        ValueError: they do not fit.
    """
    suffix = path.suffix.lower()
    owners = [other for other, one in FORMATS.items() if suffix in one.suffixes]
    if owners and suffix not in format.suffixes:
        wanted = f"a file {' or '.join(format.suffixes)} or a folder" if format.suffixes else "a folder"
        raise ValueError(
            f"expected {wanted} for the format {name}, got {path} (suffix of {', '.join(owners)})"
        )
    if config.up is not None and config.up not in format.ups:
        raise ValueError(
            f"expected up out of {', '.join(format.ups)} for the format {name}, got {config.up!r}; its axes are fixed"
        )
    if config.per_frame and (name != "glb" or not is_file(path, ".glb")):
        raise ValueError(
            f"expected a file x.glb with per_frame, got {name} at {path}; a folder has a file per frame"
        )
    return replace(config, up=config.up or format.ups[0])


def most_bytes(reconstruction: Reconstruction, format: Format, config: ExportConfig) -> int:
    """What an export of all frames takes on disk at most, roughly: for the message when there is no room."""
    height, width = reconstruction.size
    per_frame = int(height * width * format.bytes_per_pixel) + 8192
    points = min(MOST_SAMPLED, reconstruction.num_frames * min(config.points_per_frame, height * width))
    return reconstruction.num_frames * per_frame + int(format.bytes_per_point * points)
