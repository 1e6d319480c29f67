"""Nuke: camera paths as ``.chan``, and a script ``.nk`` with a camera and a plate.

Nuke's rules: +y up, cameras look along -z; rotations in degrees, by the order ``ZXY``: first about z, then x, then y
(matrix Ry Rx Rz); ``focal``, ``haperture``, ``vaperture`` in millimetres. A picture of W x H pixels of pixel aspect a
shows the point (X, Y, Z) of the camera at

    x = W / 2 (2 focal / haperture X / -Z - win_translate.u + 1)                       from the left
    y = a W / 2 (2 focal / haperture Y / -Z - win_translate.v) + H / 2                 from the bottom

``vaperture`` plays no part in that; the field of view of a ``.chan`` is vertical, in degrees.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from geo4d.formats.files import new_file


def rotations_zxy(rotation: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "T 3"]:
    """Angles (x, y, z) in degrees with Ry Rx Rz = ``rotation``, without jumps of a turn from one frame to the next.

    Looking straight up or down (x at 90 degrees), where y and z turn about one axis, z is 0.
    """
    r = np.asarray(rotation, np.float64)
    level = np.hypot(r[:, 1, 0], r[:, 1, 1])  # cosine of x
    x = np.arctan2(-r[:, 1, 2], level)
    steep = level < 1e-9
    y = np.where(steep, np.arctan2(-r[:, 2, 0], r[:, 0, 0]), np.arctan2(r[:, 0, 2], r[:, 2, 2]))
    z = np.where(steep, 0.0, np.arctan2(r[:, 1, 0], r[:, 1, 1]))
    return np.degrees(np.unwrap(np.stack([x, y, z], axis=1), axis=0))


def save_chan(
    path: str | Path,
    numbers: Sequence[int],
    c2w: Float[np.ndarray, "T 4 4"],
    fov_y: Float[np.ndarray, " T"],
) -> None:
    """Rows ``frame tx ty tz rx ry rz fov``, tab-separated.

    Args:
        numbers: of the frames.
        c2w: of the Nuke camera (-z forward, +y up) in a world with +y up.
        fov_y: full vertical field of view, radians.
    """
    c2w = np.asarray(c2w, np.float64)
    rows = np.concatenate([c2w[:, :3, 3], rotations_zxy(c2w[:, :3, :3]), np.degrees(fov_y)[:, None]], axis=1)
    with new_file(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        for number, row in zip(numbers, rows, strict=True):
            file.write("\t".join([str(number), *(f"{value:.10g}" for value in row)]) + "\n")


def save_nuke_script(
    path: str | Path,
    numbers: range,
    c2w: Float[np.ndarray, "T 4 4"],
    *,
    fps: float,
    size: tuple[int, int],
    pixel_aspect: float,
    focal_mm: Float[np.ndarray, " T"],
    haperture_mm: Float[np.ndarray, " T"],
    vaperture_mm: Float[np.ndarray, " T"],
    win_translate: Float[np.ndarray, "T 2"],
    clipping: tuple[float, float],
    plate: str | None,
    notes: Sequence[str],
) -> None:
    """A script with a ``Camera2`` node, a ``Read`` node of the plate, and a note.

    Args:
        numbers: of the frames, one after the other.
        c2w: of the Nuke camera (-z forward, +y up) in a world with +y up.
        size: (height, width) of the plate.
        pixel_aspect: width by height of its pixels.
        win_translate: of the window, in halves of its width, right and up.
        plate: pictures with ``%04d`` for the number, relative to the script; None leaves the node out.
        notes: lines for the note.
    """
    c2w = np.asarray(c2w, np.float64)
    height, width = size
    shape = f'"{width} {height} 0 0 {width} {height} {pixel_aspect:.10g} geo4d"'
    first, last = numbers[0], numbers[-1]

    def knob(*values: np.ndarray) -> str:
        curves = " ".join(_curve(numbers, value) for value in values)
        return f"{{{curves}}}" if len(values) > 1 or curves.startswith("{") else curves

    angles = rotations_zxy(c2w[:, :3, :3])
    lines = [
        "#! geo4d -nx",
        "version 12.0 v1",
        *_node("Root", inputs="0", first_frame=str(first), last_frame=str(last), lock_range="true",
               fps=f"{fps:.10g}", format=shape),
        *_node("StickyNote", inputs="0", name="geo4d_conventions", label=_quoted("\n".join(notes)),
               xpos="-300", ypos="-100"),
    ]  # fmt: skip
    if plate is not None:
        lines += _node(
            "Read", inputs="0", file=_quoted(r"\[file dirname \[value root.name]]/", plate), format=shape,
            first=str(first), last=str(last), origfirst=str(first), origlast=str(last), origset="true",
            name="Plate", xpos="0", ypos="-100",
        )  # fmt: skip
    lines += _node(
        "Camera2", inputs="0", rot_order="ZXY", translate=knob(*c2w[:, :3, 3].T), rotate=knob(*angles.T),
        focal=knob(focal_mm), haperture=knob(haperture_mm), vaperture=knob(vaperture_mm),
        near=f"{clipping[0]:.10g}", far=f"{clipping[1]:.10g}", win_translate=knob(*win_translate.T),
        name="Camera", xpos="200", ypos="-100",
    )  # fmt: skip
    with new_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _node(kind: str, **knobs: str) -> list[str]:
    return [f"{kind} {{", *(f" {name} {value}" for name, value in knobs.items()), "}"]


def _curve(numbers: range, values: Float[np.ndarray, " T"]) -> str:
    if np.ptp(values) == 0:
        return f"{values[0]:.10g}"
    keys = " ".join(f"x{number} {value:.10g}" for number, value in zip(numbers, values, strict=True))
    return f"{{curve {keys}}}"


def _quoted(*parts: str) -> str:
    """A Tcl word in quotes: ``parts[0]`` of two as it is, the rest without any meaning to Tcl."""
    raw, plain = parts if len(parts) == 2 else ("", parts[0])
    for character in ("\\", '"', "[", "$", "{", "}"):
        plain = plain.replace(character, "\\" + character)
    return f'"{raw}{plain}"'
