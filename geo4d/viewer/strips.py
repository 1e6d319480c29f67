"""Strips of frames for the report: rows of pictures and maps, with a legend that says what the colours mean."""

import html
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from geo4d.formats.inline import picture_tag
from geo4d.formats.ramps import (
    INVALID_COLOUR,
    SKY_COLOUR,
    confidence_to_colours,
    depth_to_colours,
    disparity_range,
    ramp,
    to_uint8,
)
from geo4d.types import Reconstruction

_WIDEST = 240
_STEP = 0.05
"""Confidence is shown up to a multiple of this: most results lie far below 1, and would be one dark colour."""


@dataclass(frozen=True)
class Row:
    """One row of the strip.

    Attributes:
        name: beside the row, and in the words of each picture.
        meaning: for the legend; HTML.
        draw: frame number -> [H, W, 3] bytes.
    """

    name: str
    meaning: str
    draw: Callable[[int], UInt8[np.ndarray, "H W 3"]]


def strips(reconstruction: Reconstruction, num_frames: int) -> str:
    """Legend and strip of ``num_frames`` frames, evenly spread, as HTML."""
    total = reconstruction.num_frames
    frames = np.unique(np.linspace(0, total - 1, min(num_frames, total)).round().astype(int)).tolist()
    rows = _rows(reconstruction, frames)
    legend = "".join(f"<li><b>{row.name}</b> {row.meaning}</li>" for row in rows)
    names = "".join(f"<span class='row'>{row.name}</span>" for row in rows)
    columns = []
    for t in frames:
        reliable = reconstruction.reliable is None or bool(reconstruction.reliable[t])
        when = f"frame {t}, {float(reconstruction.times_s[t]):.2f} s"
        tags = "".join(picture_tag(row.draw(t), f"{row.name}, {when}") for row in rows)
        mark = "" if reliable else " class='bad'"
        caption = html.escape(when + ("" if reliable else ", unreliable"))
        columns.append(f"<figure>{tags}<figcaption{mark}>{caption}</figcaption></figure>")
    tall = -(-reconstruction.size[0] // max(1, -(-reconstruction.size[1] // _WIDEST)))
    return (
        f"<ul class='legend'>{legend}</ul>"
        f"<div class='strip' tabindex='0' role='region' aria-label='{len(frames)} frames, from left to right'>"
        f"<div class='names' style='--row:{tall}px' aria-hidden='true'>{names}</div>{''.join(columns)}</div>"
        "<p class='note'>Scroll sideways for later frames.</p>"
    )


def _rows(reconstruction: Reconstruction, frames: list[int]) -> list[Row]:
    step = max(1, -(-reconstruction.size[1] // _WIDEST))

    def read(field: str, t: int) -> Float[np.ndarray, "H W *C"]:
        return np.asarray(getattr(reconstruction, field)[t], np.float32)[::step, ::step]

    scenes = np.zeros(reconstruction.num_frames, int)
    if reconstruction.scene is not None:
        scenes = np.asarray(reconstruction.scene)
    limits = {
        int(scene): disparity_range(np.stack([read("depth", t) for t in frames if scenes[t] == scene]))
        for scene in np.unique(scenes[frames])
    }
    certain = np.concatenate([read("confidence", t)[np.isfinite(read("depth", t))] for t in frames])
    most = most_shown(certain)
    bar = colour_bar("viridis", "0", f"{most:.2f}")
    rows = [
        Row(
            "depth",
            _depth_meaning(reconstruction, limits),
            lambda t: depth_to_colours(read("depth", t), limits[int(scenes[t])]),
        ),
        Row(
            "confidence",
            f"{bar} probability that a depth is within 10 %; 0 where there is none",
            lambda t: confidence_to_colours(read("confidence", t) / most),
        ),
    ]
    if reconstruction.rgb is not None:
        rows.insert(0, Row("picture", "as the source shows it", lambda t: to_uint8(read("rgb", t))))
    if reconstruction.dynamic is not None:
        bar = colour_bar("viridis", "0", "1")
        meaning = f"{bar} probability that it moves in the world"
        rows.append(Row("moving", meaning, lambda t: ramp(read("dynamic", t), "viridis")))
    return rows


def most_shown(confidence: Float[np.ndarray, " N"]) -> float:
    """The confidence that gets the brightest colour: the 98 % quantile, up to the next step; 1 where there is none."""
    if confidence.size == 0:
        return 1.0
    top = float(np.quantile(confidence, 0.98))
    return float(np.clip(np.ceil(round(top / _STEP, 6)) * _STEP, _STEP, 1))


def _depth_meaning(reconstruction: Reconstruction, limits: dict[int, tuple[float, float]]) -> str:
    unit = " m" if reconstruction.scale_kind == "metric" else ""
    near, far = "near", "far"
    if len(limits) == 1:
        ((low, high),) = limits.values()
        near, far = f"near, {1 / high:.3g}{unit}", f"far, {1 / low:.3g}{unit}" if low > 0 else "far"
    swatches = f"{_swatch(SKY_COLOUR, 'sky')} {_swatch(INVALID_COLOUR, 'invalid')}"
    return f"{colour_bar('turbo', near, far, backwards=True)} {swatches}"


def _swatch(colour: tuple[int, int, int], name: str) -> str:
    return f"<span class='whole'><span class='swatch' style='background:rgb{colour}'></span> {name}</span>"


def colour_bar(name: str, left: str, right: str, *, backwards: bool = False) -> str:
    """A ramp with words at both ends, as HTML; ``backwards`` puts its upper end to the left."""
    colours = ramp(np.linspace(1, 0, 9) if backwards else np.linspace(0, 1, 9), name)
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in colours.tolist())
    return (
        f"<span class='ends'>{html.escape(left)}</span> "
        "<span style='display:inline-block;width:90px;height:0.7em;border:1px solid #999;"
        f"background:linear-gradient(to right, {stops})'></span> "
        f"<span class='ends'>{html.escape(right)}</span>"
    )
