"""One self-contained HTML page about a reconstruction: strips, trajectory, focal length, diagnostics, timings."""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export import conventions
from geo4d.formats.files import new_file
from geo4d.formats.ramps import confidence_to_colours, depth_to_colours, disparity_range, ramp, to_uint8
from geo4d.results.verdict import judge_result
from geo4d.types import Reconstruction

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: 0.88rem }
td, th { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #eee; vertical-align: top }
th { color: #555; font-weight: 600 }
.strip { overflow-x: auto; white-space: nowrap }
.strip figure { display: inline-block; margin: 0 4px 0 0 }
figcaption { font-size: 0.75rem; color: #666 }
img { display: block; margin-bottom: 3px }
.bad { color: #b00020; font-weight: 600 }
svg { background: #fafafa; border: 1px solid #eee; margin-right: 1rem }
.note { color: #666; font-size: 0.85rem }
"""


def save_report(reconstruction: Reconstruction, path: str | Path, *, num_frames: int = 8) -> Path:
    """Write the page.

    Args:
        num_frames: columns of the strips, evenly spread over the video.
    Raises:
        OutputError: ``path`` cannot be written.
    """
    with new_file(path) as temporary:
        temporary.write_text(report_html(reconstruction, num_frames=num_frames), encoding="utf-8")
    return Path(path)


def readable(text: str) -> str:
    """Text that can be written in UTF-8: bytes of file names that are no UTF-8 become replacement characters."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def report_html(reconstruction: Reconstruction, *, num_frames: int = 8) -> str:
    """The page as text; every word of the input is escaped."""
    provenance = dict(reconstruction.provenance)
    source = provenance.get("source", {})
    name = source.get("name", "video") if isinstance(source, Mapping) else Path(str(source)).name
    title = f"geo4d report: {name}"
    diagnostics = dict(reconstruction.diagnostics)
    windows = window_rows(diagnostics)
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _summary(reconstruction),
        "<h2>Frames</h2>",
        _strips(reconstruction, num_frames),
    ]
    if reconstruction.has_poses:
        sections += ["<h2>Camera path</h2>", _trajectories(reconstruction)]
    sections += ["<h2>Focal length</h2>", _focal(reconstruction)]
    if windows:
        sections += ["<h2>Windows</h2>", _table(windows)]
    for key, heading in (
        ("motion", "Motion seen by tracks"),
        ("terms", "Terms"),
        ("seconds", "Seconds per stage"),
    ):
        if diagnostics.get(key):
            sections += [f"<h2>{heading}</h2>", _value(diagnostics.pop(key))]
    rest = {
        key: value
        for key, value in diagnostics.items()
        if key not in ("windows", "evidence_windows", "scenes")
    }
    for number, scene in enumerate(diagnostics.get("scenes") or []):
        rest[f"scene {number}"] = {k: v for k, v in scene.items() if k not in _PER_WINDOW}
    if rest:
        sections += ["<h2>Diagnostics</h2>", _value(rest)]
    sections += [
        "<h2>Provenance</h2>",
        _value(provenance),
        "<h2>Conventions</h2>",
        _value(conventions(reconstruction)),
    ]
    body = "\n".join(sections)
    return readable(
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


_PER_WINDOW = (
    "windows",
    "disagreement",
    "point_residual",
    "disparity_error",
    "disparity_share",
    "window_residual",
)


def window_rows(diagnostics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per window from what the run and the fusion of every scene noted about it."""
    spans = diagnostics.get("windows") or []
    rows: dict[int, dict[str, Any]] = {
        number: {"window": number, "frames": _frames(span)} for number, span in enumerate(spans)
    }
    for position, index in enumerate(diagnostics.get("evidence_windows") or []):
        number = len(spans) + position
        rows[number] = {"window": number, "frames": f"{_frames(spans[index])} (motion)"}
    for scene in diagnostics.get("scenes") or []:
        numbers = scene.get("windows", [])
        for position, number in enumerate(numbers):
            row = rows.setdefault(number, {"window": number})
            for key in _PER_WINDOW[1:]:
                values = scene.get(key, [])
                if len(values) == len(numbers):
                    row[key.replace("_", " ")] = values[position]
            degrees = scene.get("trajectory_rpe_deg", {}).get(str(position))
            if degrees is not None:
                row["trajectory rpe, degrees"] = degrees
    for entry in diagnostics.get("dropped") or []:
        if entry["window"] in rows:
            row = rows[entry["window"]]
            row["dropped"] = "; ".join(filter(None, [row.get("dropped"), f"{entry['what']}: {entry['why']}"]))
    for number, tries in (diagnostics.get("tries") or {}).items():
        if tries and int(number) in rows:
            rows[int(number)]["sampled again"] = tries
    return list(rows.values())


def _summary(reconstruction: Reconstruction) -> str:
    height, width = reconstruction.size
    source = reconstruction.provenance.get("source", {})
    rows: dict[str, Any] = {
        "frames": reconstruction.num_frames,
        "duration": f"{float(reconstruction.times_s[-1]) - float(reconstruction.times_s[0]):.2f} s",
        "size of maps": f"{width} x {height}",
        "scale": "metres" if reconstruction.scale_kind == "metric" else "up to one unknown factor",
        "camera poses": "yes" if reconstruction.has_poses else "none (add them with 'geo4d pose')",
    }
    if reconstruction.scene is not None and len(set(np.asarray(reconstruction.scene).tolist())) > 1:
        rows["scenes"] = f"{len(set(np.asarray(reconstruction.scene).tolist()))}, each in a world of its own"
    if isinstance(source, Mapping) and isinstance(source.get("notes"), list):
        rows["about the source"] = "; ".join(map(str, source["notes"]))
    text = _value(rows)
    for problem in judge_result(reconstruction).problems:
        text += f"<p class='bad'>{html.escape(problem)}</p>"
    if reconstruction.reliable is not None and not np.asarray(reconstruction.reliable).all():
        bad = np.flatnonzero(~np.asarray(reconstruction.reliable))
        text += f"<p class='bad'>{len(bad)} of {reconstruction.num_frames} frames are unreliable: {_ranges(bad)}</p>"
    return text


def _frames(frames: Sequence[int]) -> str:
    """'0-15', '0-30, one in 2', or the ranges of a window with leaps."""
    steps = set(np.diff(frames).tolist())
    if len(steps) == 1 and (step := steps.pop()) > 1:
        return f"{frames[0]}-{frames[-1]}, one in {step}"
    return _ranges(frames)


def _ranges(numbers: Sequence[int] | np.ndarray) -> str:
    """'0-3, 7' from sorted numbers."""
    groups = np.split(np.asarray(numbers), np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else f"{g[0]}" for g in groups if len(g))


def _strips(reconstruction: Reconstruction, num_frames: int) -> str:
    total = reconstruction.num_frames
    frames = np.unique(np.linspace(0, total - 1, min(num_frames, total)).round().astype(int))
    shrink = max(1, -(-reconstruction.size[1] // 240))
    depths = [np.asarray(reconstruction.depth[t], np.float32)[::shrink, ::shrink] for t in frames]
    scenes = np.zeros(total, int) if reconstruction.scene is None else np.asarray(reconstruction.scene)
    limits = {}
    for scene in np.unique(scenes[frames]):
        of_scene = [depth for depth, t in zip(depths, frames, strict=True) if scenes[t] == scene]
        limits[int(scene)] = disparity_range(np.stack(of_scene))
    figures = []
    for depth, t in zip(depths, frames, strict=True):
        images = []
        if reconstruction.rgb is not None:
            images.append(to_uint8(np.asarray(reconstruction.rgb[t], np.float32)[::shrink, ::shrink]))
        images.append(depth_to_colours(depth, limits[int(scenes[t])]))
        images.append(
            confidence_to_colours(np.asarray(reconstruction.confidence[t], np.float32)[::shrink, ::shrink])
        )
        if reconstruction.dynamic is not None:
            images.append(
                ramp(np.asarray(reconstruction.dynamic[t], np.float32)[::shrink, ::shrink], "viridis")
            )
        reliable = reconstruction.reliable is None or bool(reconstruction.reliable[t])
        caption = f"frame {t}, {float(reconstruction.times_s[t]):.2f} s" + (
            "" if reliable else ", unreliable"
        )
        mark = "" if reliable else " class='bad'"
        figures.append(
            "<figure>"
            + "".join(map(_image, images))
            + f"<figcaption{mark}>{html.escape(caption)}</figcaption></figure>"
        )
    rows = ["picture"] if reconstruction.rgb is not None else []
    rows += ["depth (red near, blue far; light blue sky, grey invalid)", "confidence (yellow high)"]
    if reconstruction.dynamic is not None:
        rows.append("moving (yellow)")
    return f"<div class='strip'>{''.join(figures)}</div><p class='note'>Rows: {html.escape('; '.join(rows))}.</p>"


def _image(pixels: np.ndarray) -> str:
    import cv2

    written, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    assert written
    text = base64.b64encode(data.tobytes()).decode()
    return f"<img alt='' width='{pixels.shape[1]}' height='{pixels.shape[0]}' src='data:image/jpeg;base64,{text}'>"


def _trajectories(reconstruction: Reconstruction) -> str:
    assert reconstruction.c2w is not None
    c2w = np.asarray(reconstruction.c2w, np.float64)
    scenes = np.zeros(len(c2w), int) if reconstruction.scene is None else np.asarray(reconstruction.scene)
    plots = []
    for scene in np.unique(scenes):
        chosen = c2w[scenes == scene]
        name = f"scene {scene}: " if len(np.unique(scenes)) > 1 else ""
        for title, first, second, flip in (
            ("from above (x right, z up)", 0, 2, 1),
            ("from the side (z right, y down)", 2, 1, -1),
        ):
            plots.append(_path_plot(chosen, first, second, flip, name + title))
    length = np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1)[np.diff(scenes) == 0].sum()
    unit = "m" if reconstruction.scale_kind == "metric" else "units"
    return (
        "".join(plots)
        + f"<p class='note'>Path length {length:.4g} {unit}; blue start, red end; ticks look forward.</p>"
    )


def _path_plot(c2w: np.ndarray, first: int, second: int, flip: int, title: str) -> str:
    size, margin = 360, 30
    centre = c2w[:, :3, 3][:, [first, second]] * [1, flip]
    look = c2w[:, :3, 2][:, [first, second]] * [1, flip]
    low, extent = centre.min(0), max(float(np.ptp(centre, axis=0).max()), 1e-9)
    offset = (extent - np.ptp(centre, axis=0)) / 2
    xy = (centre - low + offset) / extent * (size - 2 * margin) + margin
    xy[:, 1] = size - xy[:, 1]
    tip = xy + 14 * look * [1, -1]
    shades = np.linspace(40, 220, len(xy)).astype(int)
    colours = [f"rgb({red},90,{blue})" for red, blue in zip(shades, shades[::-1], strict=True)]
    lines = [
        f"<line x1='{a[0]:.1f}' y1='{a[1]:.1f}' x2='{b[0]:.1f}' y2='{b[1]:.1f}' stroke='{c}' stroke-width='2'/>"
        for a, b, c in zip(xy[:-1], xy[1:], colours, strict=False)
    ]
    every = max(1, len(xy) // 24)
    lines += [
        f"<line x1='{xy[i, 0]:.1f}' y1='{xy[i, 1]:.1f}' x2='{tip[i, 0]:.1f}' y2='{tip[i, 1]:.1f}' stroke='#999'/>"
        for i in range(0, len(xy), every)
    ]
    label = f"<text x='8' y='16' font-size='12' fill='#555'>{html.escape(title)}, width {extent:.3g}</text>"
    return f"<svg width='{size}' height='{size}' role='img'>{label}{''.join(lines)}</svg>"


def _focal(reconstruction: Reconstruction) -> str:
    focal = np.asarray(reconstruction.intrinsics, np.float64)[:, 0, 0]
    width = reconstruction.size[1]
    fov = np.degrees(2 * np.arctan(0.5 * width / focal))
    text = f"<p class='note'>{focal.mean():.1f} px on average ({fov.mean():.1f} degrees across the width)"
    if np.ptp(focal) < 1e-3 * focal.mean():
        return text + ", the same for all frames.</p>"
    times = np.asarray(reconstruction.times_s, np.float64)
    columns = 60 + 760 * (times - times[0]) / max(float(np.ptp(times)), 1e-9)
    rows = 130 - 100 * (focal - focal.min()) / np.ptp(focal)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(columns, rows, strict=True))
    marks = f"<text x='4' y='34' font-size='11'>{focal.max():.1f}</text>"
    marks += f"<text x='4' y='134' font-size='11'>{focal.min():.1f}</text>"
    line = f"<polyline points='{points}' fill='none' stroke='#2860b0' stroke-width='2'/>"
    plot = f"<svg width='840' height='160' role='img'>{marks}{line}</svg>"
    return f"{plot}{text}, from {focal.min():.1f} to {focal.max():.1f} px over time.</p>"


def _table(rows: Sequence[Any]) -> str:
    """A table of mappings with the union of their keys as columns; other rows are shown as they are."""
    if not all(isinstance(row, Mapping) for row in rows):
        return _value(list(rows))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_value(row.get(column, ''))}</td>" for column in columns) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        rows = "".join(
            f"<tr><th>{html.escape(str(key))}</th><td>{_value(item)}</td></tr>" for key, item in value.items()
        )
        return f"<table>{rows}</table>"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Mapping) for item in value):
            return _table(value)
        text = json.dumps(value, default=str)
        return html.escape(text if len(text) < 400 else text[:397] + "...")
    return html.escape(str(value))
