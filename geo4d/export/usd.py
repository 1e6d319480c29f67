"""USD: a scene for Blender, Houdini, Maya, Unreal or Nuke with camera, points and plate."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from geo4d.export.common import chosen_frames, conventions, poses_of
from geo4d.export.config import ExportConfig
from geo4d.export.film import (
    FILM_BACK_MM,
    FilmBack,
    TimeLine,
    clipping_range,
    film_back,
    plate_name,
    save_plate,
    time_line,
    time_notes,
)
from geo4d.export.points import counted, sampled_static, thinned
from geo4d.formats.files import new_file
from geo4d.formats.points import PointCloud
from geo4d.formats.usd import UsdScene, require_usd, save_usdz
from geo4d.types import Reconstruction

OPENGL = np.diag([1.0, -1, -1, 1])
"""From the axes of a camera that looks along -z with +y up to ours."""


def save_usd(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """A USD scene: ``/World/Camera``, ``/World/Points`` frame by frame, ``/World/Static``, and the plate.

    - The camera has a film back of 36 mm along the longer side, with the lens, the offsets of the principal point and the
      clipping range; focal length and apertures are in tenths of a unit, as USD has them.
    - ``Points`` are those of each frame, ``Static`` points sampled over all frames where nothing moves. Widths are the
      distance between neighbours at that depth, colours are linear.
    - One frame on the time line for each frame, the source's frames and times in ``customLayerData``.
    - Pictures lie in ``NAME_usdc_plate/`` beside the scene (within a ``.usdz``), on a card in view of the camera.

    The world has the axes of ``config.up`` (y or z), and metres in a unit where they are known, else 1.
    """
    require_usd()
    frames = chosen_frames(reconstruction, config, one_world=True)
    line = time_line(np.asarray(reconstruction.times_s, np.float64)[frames], config.first_frame)
    intrinsics = np.asarray(reconstruction.intrinsics, np.float64)[frames]
    back = film_back(intrinsics, reconstruction.size)
    near, far = clipping_range(reconstruction, frames)
    c2w = poses_of(reconstruction, frames)
    notes = _notes(reconstruction, config, frames, line)
    scene = UsdScene(
        up="z" if config.up == "z" else "y",
        metres_per_unit=config.metres_per_unit or 1.0,
        first=line.first,
        count=line.count,
        fps=line.fps,
        notes=notes,
    )
    scene.add_camera(
        c2w @ OPENGL,
        focal_mm=back.focal,
        width_mm=back.width,
        height_mm=back.height,
        shift_x_mm=back.shift_x,
        shift_y_mm=back.shift_y,
        clipping=(near, far),
    )
    packed = path.suffix.lower() == ".usdz"
    plate = path.with_name("plate" if packed else plate_name(path))
    names = save_plate(plate, reconstruction, frames, line)
    files = [f"{plate.name}/{name}" for name in names]
    if files:
        scene.add_plate([f"./{file}" for file in files], _card(back, 0.98 * far))
    for number, cloud, widths in _clouds(reconstruction, frames, line, config):
        scene.add_points("Points", cloud, widths, number)
    scene.add_points("Static", *sampled_static(reconstruction, frames, config), number=None)
    comment = "\n".join(
        ["Written by geo4d.", *(f"{name}: {value}" for name, value in notes.items() if name != "frames")]
    )
    if not packed:
        scene.save(path, comment)
        return [path, plate] if files else [path]
    layer = path.with_name("scene.usdc")
    scene.save(layer, comment)
    with new_file(path) as temporary:
        temporary.unlink()  # the library makes it
        save_usdz(temporary, layer, [(plate / name, file) for name, file in zip(names, files, strict=True)])
    layer.unlink()
    for name in names:
        (plate / name).unlink()
    if files:
        plate.rmdir()
    return [path]


def _notes(
    reconstruction: Reconstruction, config: ExportConfig, frames: Sequence[int], line: TimeLine
) -> dict[str, Any]:
    rows = time_notes(reconstruction, frames, line)
    return {
        **conventions(reconstruction, config),
        "camera_axes": "USD: +x right, +y up, looks along -z",
        "poses": "camera to world, xformOp:transform",
        "lens": f"focal length and apertures in tenths of a unit; the film is {FILM_BACK_MM:g} mm along the longer side",
        "metres_per_unit": "known" if config.metres_per_unit else "unknown; stated as 1",
        "time": line.words(),
        "frames": "; ".join(
            f"{row['number']}: source {row['source_frame']} at {row['time_s']:.6f} s" for row in rows
        ),
    }


def _clouds(
    reconstruction: Reconstruction, frames: Sequence[int], line: TimeLine, config: ExportConfig
) -> Iterator[tuple[int, PointCloud, Float[np.ndarray, " N"]]]:
    """Number, points and widths of every frame."""
    c2w = poses_of(reconstruction, frames)
    intrinsics = np.asarray(reconstruction.intrinsics, np.float64)[frames]
    whole = counted(reconstruction, frames, config)
    sizes: list[int] = []

    def noted() -> Iterator[PointCloud]:
        for cloud in whole:
            sizes.append(cloud.num_points)
            yield cloud

    for row, cloud in enumerate(thinned(noted(), len(frames), config)):
        depth = (cloud.positions - c2w[row, :3, 3]) @ c2w[row, :3, 2]
        share = max(cloud.num_points, 1) / max(sizes[row], 1)  # thinned points are farther apart
        widths = depth / intrinsics[row, 0, 0] / np.sqrt(share)
        yield line.first + row, cloud, widths.astype(np.float32)


def _card(back: FilmBack, distance: float) -> Float[np.ndarray, "T 4 3"]:
    """Corners of a card at a distance that fills the view, in the axes of the USD camera."""
    left, right = back.shift_x - back.width / 2, back.shift_x + back.width / 2
    bottom, top = back.shift_y - back.height / 2, back.shift_y + back.height / 2
    corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
    depth = np.full_like(back.focal, -distance)
    return np.stack(
        [
            np.stack([x / back.focal * distance, y / back.focal * distance, depth], axis=-1)
            for x, y in corners
        ],
        axis=1,
    )
