"""GLB: points in glTF axes."""

from pathlib import Path
from typing import Any

from geo4d.export.common import chosen_frames, conventions, frame_notes, is_file, write_readme
from geo4d.export.config import ExportConfig
from geo4d.export.points import counted, thinned
from geo4d.formats.files import new_folder
from geo4d.formats.points import save_glb
from geo4d.types import Reconstruction


def save_points_glb(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """GLB point cloud (glTF axes: +y up): one file with all frames, or a folder with one file a frame."""
    single = is_file(path, ".glb")
    frames = chosen_frames(
        reconstruction, config, one_world=single and (config.frames is None or len(config.frames) > 1)
    )
    notes: dict[str, Any] = {
        **conventions(reconstruction),
        "axes_of_this_file": "glTF: +x right, +y up, +z backward",
        "colours": "COLOR_0 in linear light",
    }
    if single:
        clouds = thinned(counted(reconstruction, frames, config), len(frames), config)
        nodes = [(f"frame_{f:06d}", frame_notes(reconstruction, f)) for f in frames]
        save_glb(
            path,
            clouds,
            {**notes, "frames": [note for _, note in nodes]},
            nodes=nodes if config.per_frame else None,
        )
        return [path]
    with new_folder(path) as folder:
        for frame, cloud in zip(frames, counted(reconstruction, frames, config), strict=True):
            save_glb(
                folder / f"points_{frame:06d}.glb", cloud, {**notes, **frame_notes(reconstruction, frame)}
            )
        write_readme(
            folder, reconstruction, frames, {"points_FRAME.glb": "points and colours of one frame, glTF axes"}
        )
    return [path]
