"""A ``Reconstruction`` as the files of other tools: a dict of formats, each one function.

Every export is complete or absent, works frame by frame in bounded memory, and states its conventions: in the file where
the format has room, and in a ``README.txt`` beside the files of a folder.
"""

from pathlib import Path

from geo4d.export.colmap import save_scene_colmap
from geo4d.export.common import chosen_frames, conventions, is_file
from geo4d.export.config import ExportConfig, Up
from geo4d.export.format import Format
from geo4d.export.glb import save_points_glb
from geo4d.export.maps import save_depth_exr, save_depth_png, save_npz
from geo4d.export.movie import save_preview
from geo4d.export.nerfstudio import nerfstudio_scale, save_scene_nerfstudio
from geo4d.export.points import MOST_SAMPLED, iter_point_clouds, save_points_ply
from geo4d.export.trajectories import save_trajectory_kitti, save_trajectory_tum
from geo4d.formats.files import all_or_nothing
from geo4d.types import Reconstruction

__all__ = [
    "FORMATS",
    "ExportConfig",
    "Format",
    "Up",
    "chosen_frames",
    "conventions",
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
    "glb": Format(save_points_glb, "points in glTF axes", (".glb",), bytes_per_pixel=16),
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
    "preview": Format(
        save_preview, "movie of picture, depth and confidence side by side",
        (".mp4",), file_name="preview.mp4", bytes_per_pixel=3,
    ),
}  # fmt: skip
"""Every format by its name, in the order in which they are listed."""


def save(
    reconstruction: Reconstruction, path: str | Path, format: str, config: ExportConfig | None = None
) -> list[Path]:
    """Write ``reconstruction`` as ``format``.

    Args:
        path: the file itself when it carries the format's suffix, else a folder that gets documented names.
        config: what goes into it; None takes the defaults.
    Returns:
        the files and folders written.
    Raises:
        ValueError: unknown format, frames out of range, the reconstruction lacks what the format needs, an option that
            the format has no use for, or filters that leave no point of a point cloud.
        GeometryError: a point cloud of frames that have no depth at all.
        OutputError: ``path`` exists already or cannot be written.
    """
    config = config or ExportConfig()
    if format not in FORMATS:
        raise ValueError(f"expected one of {', '.join(FORMATS)} as the format, got {format!r}")
    chosen = FORMATS[format]
    if config.up != "camera" and format != "ply":
        raise ValueError(f"expected the format ply with up={config.up!r}, got {format}; its axes are fixed")
    if config.per_frame and (format != "glb" or not is_file(Path(path), ".glb")):
        raise ValueError(
            f"expected a file x.glb with per_frame, got {format} at {path}; a folder has a file per frame"
        )
    path = Path(path)
    joins = chosen.file_name is not None
    with all_or_nothing(path, most_bytes(reconstruction, chosen, config), into_folder=joins) as place:
        target = place
        if chosen.file_name is not None and not is_file(path, *chosen.suffixes):
            target = place / chosen.file_name
        written = chosen.write(reconstruction, target, config)
    return [path.parent / file.relative_to(place.parent) for file in written]


def most_bytes(reconstruction: Reconstruction, format: Format, config: ExportConfig) -> int:
    """What an export of all frames takes on disk at most, roughly: for the message when there is no room."""
    height, width = reconstruction.size
    per_frame = int(height * width * format.bytes_per_pixel) + 8192
    points = min(MOST_SAMPLED, reconstruction.num_frames * min(config.points_per_frame, height * width))
    return reconstruction.num_frames * per_frame + int(format.bytes_per_point * points)
