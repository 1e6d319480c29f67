"""Nuke: camera path as ``.chan``, and a script with camera and plate."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export.common import chosen_frames, conventions, poses_of
from geo4d.export.config import ExportConfig
from geo4d.export.film import (
    FILM_BACK_MM,
    FilmBack,
    TimeLine,
    clipping_range,
    film_back,
    pixel_aspect,
    plate_name,
    save_plate,
    time_line,
    time_notes,
)
from geo4d.export.usd import OPENGL
from geo4d.formats.files import new_file
from geo4d.formats.nuke import save_chan, save_nuke_script
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

_WORDS = {
    "camera_axes": "Nuke: +x right, +y up, looks along -z",
    "poses": "camera to world: translate, then rotate by the order ZXY (first z, then x, then y; degrees)",
}


def save_nuke_chan(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """Nuke's ``.chan``: frame, position, rotation (degrees, ZXY), vertical field of view.

    Conventions stand in a ``.json`` beside.

    A principal point off the centre has no place in it; the script (format ``nuke``) holds it as ``win_translate``.
    """
    frames, line, back = _camera(reconstruction, config)
    if not back.is_centred:
        log.warning(
            "a .chan has no place for a principal point off the centre: points are up to %.1f pixels off; "
            "the format nuke has one",
            max(
                np.abs(back.shift_x / back.width).max() * reconstruction.size[1],
                np.abs(back.shift_y / back.height).max() * reconstruction.size[0],
            ),
        )
    save_chan(path, line.numbers, poses_of(reconstruction, frames) @ OPENGL, back.fov_y)
    sidecar = path.with_suffix(".json")
    notes: dict[str, Any] = {
        "conventions": {
            **conventions(reconstruction, config),
            **_WORDS,
            "columns": "frame tx ty tz rx ry rz fov; fov: full vertical field of view, degrees",
            "time": line.words(),
        },
        "pixel_aspect": pixel_aspect(np.asarray(reconstruction.intrinsics)[frames]),
        "frames": time_notes(reconstruction, frames, line),
    }
    with new_file(sidecar) as temporary:
        temporary.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    return [path, sidecar]


def save_nuke(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """A Nuke script with the camera (lens, film back, window for the principal point, clipping) and the plate.

    Pictures lie in ``NAME_nk_plate/`` beside the script, which finds them relative to itself. Conventions and frames
    stand in a note in the script.
    """
    frames, line, back = _camera(reconstruction, config)
    intrinsics = np.asarray(reconstruction.intrinsics, np.float64)[frames]
    plate = path.with_name(plate_name(path))
    names = save_plate(plate, reconstruction, frames, line)
    words = {
        **conventions(reconstruction, config),
        **_WORDS,
        "lens": f"mm; the film is {FILM_BACK_MM:g} mm along the longer side; win_translate is the principal point",
        "time": line.words(),
        "frames": "; ".join(
            f"{row['number']}: source {row['source_frame']} at {row['time_s']:.6f} s"
            for row in time_notes(reconstruction, frames, line)
        ),
    }
    save_nuke_script(
        path,
        line.numbers,
        poses_of(reconstruction, frames) @ OPENGL,
        fps=line.fps,
        size=reconstruction.size,
        pixel_aspect=pixel_aspect(intrinsics),
        focal_mm=back.focal,
        haperture_mm=back.width,
        vaperture_mm=back.height,
        win_translate=2 * np.stack([back.shift_x, back.shift_y], axis=1) / back.width[:, None],
        clipping=clipping_range(reconstruction, frames),
        plate=f"{plate.name}/frame_%04d.png" if names else None,
        notes=["Written by geo4d.", *(f"{name}: {value}" for name, value in words.items())],
    )
    return [path, plate] if names else [path]


def _camera(reconstruction: Reconstruction, config: ExportConfig) -> tuple[Sequence[int], TimeLine, FilmBack]:
    frames = chosen_frames(reconstruction, config, one_world=True)
    line = time_line(np.asarray(reconstruction.times_s, np.float64)[frames], config.first_frame)
    back = film_back(np.asarray(reconstruction.intrinsics, np.float64)[frames], reconstruction.size)
    return frames, line, back
