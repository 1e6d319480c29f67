"""Tables of the report: rows of windows, and any JSON value as nested tables."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geo4d.viewer.words import ranges

PER_WINDOW = (
    "windows",
    "disagreement",
    "point_residual",
    "disparity_error",
    "disparity_share",
    "window_residual",
)
"""What the fusion of a scene notes for each of its windows."""

WINDOW_WORDS = {
    "disagreement": "typical distance from the neighbouring windows before the solve, as a share of the depth range",
    "point residual": "median distance of the window's points from the scene, before the solve of all terms",
    "disparity error": "relative error of the window's disparity against its points",
    "disparity share": "share of the disparity within a factor of 1.25 of the points, from 0 to 1",
    "window residual": "median distance of the window's points from the scene, at the end",
    "trajectory rpe, degrees": "how far its turning from frame to frame is off the scene's",
    "dropped": "what of it does not take part, and why",
    "sampled again": "further tries of the network, because the first was dropped",
}
"""What the columns mean."""


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
            for key in PER_WINDOW[1:]:
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


def _frames(frames: Sequence[int]) -> str:
    """'0-15', '0-30, one in 2', or the ranges of a window with leaps."""
    steps = set(np.diff(frames).tolist())
    if len(steps) == 1 and (step := steps.pop()) > 1:
        return f"{frames[0]}-{frames[-1]}, one in {step}"
    return ranges(frames)


def table(rows: Sequence[Any]) -> str:
    """A table of mappings with the union of their keys as columns; other rows are shown as they are."""
    if not all(isinstance(row, Mapping) for row in rows):
        return value_html(list(rows))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{value_html(row.get(column, ''))}</td>" for column in columns) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def value_html(value: Any) -> str:
    """A JSON value as text or tables, escaped."""
    if isinstance(value, Mapping):
        rows = "".join(
            f"<tr><th>{html.escape(str(key))}</th><td>{value_html(item)}</td></tr>"
            for key, item in value.items()
        )
        return f"<table>{rows}</table>"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Mapping) for item in value):
            return table(value)
        text = json.dumps(value, default=str)
        return html.escape(text if len(text) < 400 else text[:397] + "...")
    return html.escape(str(value))
