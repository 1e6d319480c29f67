"""All formats by their names; no writer is imported before it writes, so that a list of formats costs nothing."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from geo4d.export.config import ExportConfig
from geo4d.export.format import Format, Writer
from geo4d.export.plugins import load_plugin, plugin_points

if TYPE_CHECKING:
    from geo4d.types import Reconstruction


def _writer(name: str) -> Writer:
    """``MODULE.FUNCTION`` of this package, imported when it is called."""
    module, function = name.split(".")

    def write(reconstruction: "Reconstruction", path: Path, config: ExportConfig) -> list[Path]:
        return getattr(import_module(f"geo4d.export.{module}"), function)(reconstruction, path, config)

    write.__name__ = function
    return write


FORMATS: dict[str, Format] = {
    "npz": Format(
        _writer("maps.save_npz"), "depth, confidence, cameras and times as arrays",
        (".npz",), file_name="geometry.npz", bytes_per_pixel=12,
    ),
    "exr": Format(
        _writer("maps.save_depth_exr"), "colour, depth, what moves, confidence and world points, a file a frame",
        (".exr",), bytes_per_pixel=36,
    ),
    "png": Format(_writer("maps.save_depth_png"), "16-bit depth, a file a frame", (".png",), bytes_per_pixel=2),
    "ply": Format(_writer("points.save_points_ply"), "points, colours, confidence", (".ply",), bytes_per_pixel=27),
    "glb": Format(
        _writer("glb.save_points_glb"), "points and the moving camera, in glTF axes",
        (".glb",), ups=("y",), bytes_per_pixel=24,
    ),
    "usd": Format(
        _writer("usd.save_usd"), "scene with camera, lens, points and plate (extra usd)",
        (".usdc", ".usdz", ".usda", ".usd"), file_name="scene.usdc", ups=("y", "z"), bytes_per_pixel=40,
    ),
    "nuke": Format(
        _writer("nuke.save_nuke"), "Nuke script with camera, lens and plate",
        (".nk",), file_name="camera.nk", ups=("y",), bytes_per_pixel=4,
    ),
    "chan": Format(
        _writer("nuke.save_nuke_chan"), "camera path for Nuke",
        (".chan",), file_name="camera.chan", ups=("y",),
    ),
    "tum": Format(
        _writer("trajectories.save_trajectory_tum"), "camera path: time, position, quaternion",
        (".txt", ".tum"), file_name="trajectory_tum.txt",
    ),
    "kitti": Format(
        _writer("trajectories.save_trajectory_kitti"), "camera path: 3x4 matrices",
        (".txt", ".kitti"), file_name="trajectory_kitti.txt",
    ),
    "colmap": Format(
        _writer("colmap.save_scene_colmap"), "folder for COLMAP-based tools: pictures, masks, cameras, points",
        bytes_per_pixel=5, bytes_per_point=1000,
    ),
    "nerfstudio": Format(
        _writer("nerfstudio.save_scene_nerfstudio"), "folder for nerfstudio: pictures, masks, depth, cameras, points",
        bytes_per_pixel=8, bytes_per_point=1000,
    ),
    "rrd": Format(
        _writer("recording.save_recording"), "recording for the rerun viewer (extra rerun)",
        (".rrd",), file_name="scene.rrd", bytes_per_pixel=32,
    ),
    "mcap": Format(
        _writer("robotics.save_mcap"), "ROS 2 messages for Foxglove, rviz: picture, depth, camera, points (extra ros)",
        (".mcap",), file_name="scene.mcap", ups=("z", "camera", "y"), bytes_per_pixel=28,
    ),
    "preview": Format(
        _writer("movie.save_preview"), "movie of picture, depth and confidence side by side",
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
