"""Plots of the report as SVG: the path of the camera and its focal length. They shrink with the page."""

import html

import numpy as np

from geo4d.types import Reconstruction


def trajectories(reconstruction: Reconstruction) -> str:
    """The path of every scene from above and from the side."""
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
        + f"<p class='note'>Path length {length:.4g} {unit}; blue start, red end; grey ticks point where it looks.</p>"
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
    return svg(size, size, f"path of the camera, {title}", label + "".join(lines))


def focal_length(reconstruction: Reconstruction) -> str:
    """The focal length in words, and over time where it changes."""
    focal = np.asarray(reconstruction.intrinsics, np.float64)[:, 0, 0]
    width = reconstruction.size[1]
    fov = np.degrees(2 * np.arctan(0.5 * width / focal))
    text = f"<p class='note'>{focal.mean():.1f} px at the width of the maps ({width} px): {fov.mean():.1f} degrees across"
    if np.ptp(focal) < 1e-3 * focal.mean():
        return text + ", the same for all frames.</p>"
    times = np.asarray(reconstruction.times_s, np.float64)
    columns = 60 + 760 * (times - times[0]) / max(float(np.ptp(times)), 1e-9)
    rows = 130 - 100 * (focal - focal.min()) / np.ptp(focal)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(columns, rows, strict=True))
    marks = f"<text x='4' y='34' font-size='11'>{focal.max():.1f}</text>"
    marks += f"<text x='4' y='134' font-size='11'>{focal.min():.1f}</text>"
    line = f"<polyline points='{points}' fill='none' stroke='#2860b0' stroke-width='2'/>"
    plot = svg(840, 160, "focal length over time", marks + line)
    return f"{plot}{text}, from {focal.min():.1f} to {focal.max():.1f} px over time.</p>"


def svg(width: int, height: int, name: str, content: str) -> str:
    """A drawing with a name for those who cannot see it, no wider than the page."""
    return (
        f"<svg viewBox='0 0 {width} {height}' style='width:{width}px' role='img' "
        f"aria-label='{html.escape(name, quote=True)}'>{content}</svg>"
    )
