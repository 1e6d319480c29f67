"""A reconstruction in five lines, and as a small piece of a page for notebooks: what prints when it is named there."""

import html
from collections.abc import Mapping

import numpy as np

from geo4d.formats.inline import picture_tag, shrunk
from geo4d.formats.ramps import depth_to_colours, disparity_range, to_uint8
from geo4d.results.verdict import judge_result
from geo4d.types import Reconstruction

THUMBNAILS = 4
_LONGEST = 160


def source_name(reconstruction: Reconstruction) -> str:
    """Name of the video that it was made of."""
    source = reconstruction.provenance.get("source")
    if isinstance(source, Mapping):
        return str(source.get("name", "video"))
    return str(source).rsplit("/", 1)[-1] if source else "video"


def summary_lines(reconstruction: Reconstruction) -> list[str]:
    """Five lines: what it is of, its maps, unit, cameras, and whether it can be trusted. No map is read."""
    height, width = reconstruction.size
    times = np.asarray(reconstruction.times_s, np.float64)
    maps = [
        name
        for name in ("depth", "confidence", "dynamic", "rgb")
        if getattr(reconstruction, name) is not None
    ]
    metric = reconstruction.scale_kind == "metric"
    verdict = judge_result(reconstruction).lines()
    more = f" (and {len(verdict) - 1} more: geo4d report)" if len(verdict) > 1 else ""
    return [
        f"Reconstruction of {source_name(reconstruction)}: {reconstruction.num_frames} frames of {width}x{height} "
        f"(width x height), {times[-1] - times[0]:.2f} s",
        f"  maps    {', '.join(maps)}; sliced by frame, such as .depth[0], read when they are",
        "  unit    " + ("metres" if metric else "one unknown factor for depth and path (scale)"),
        f"  cameras {_cameras(reconstruction)}",
        f"  {verdict[0]}{more}",
    ]


def _cameras(reconstruction: Reconstruction) -> str:
    focal = np.asarray(reconstruction.intrinsics, np.float64)[:, 0, 0]
    fov = np.degrees(2 * np.arctan(0.5 * reconstruction.size[1] / focal))
    wide = f"{fov.mean():.1f}" if np.ptp(fov) < 0.1 else f"{fov.min():.1f} to {fov.max():.1f}"
    text = f"{'poses' if reconstruction.has_poses else 'no poses'}, {wide} degrees across the width"
    scenes = 1 if reconstruction.scene is None else len(set(np.asarray(reconstruction.scene).tolist()))
    return text if scenes == 1 else f"{text}, {scenes} scenes with a world each"


def summary_html(reconstruction: Reconstruction) -> str:
    """The lines with a few pictures and their depth above; reads the frames that it shows."""
    total = reconstruction.num_frames
    frames = np.unique(np.linspace(0, total - 1, THUMBNAILS).round().astype(int)).tolist()
    depths = [shrunk(np.asarray(reconstruction.depth[t], np.float32), _LONGEST) for t in frames]
    limits = disparity_range(np.stack(depths))
    cells = []
    for t, depth in zip(frames, depths, strict=True):
        when = f"frame {t}, {float(reconstruction.times_s[t]):.2f} s"
        tags = [picture_tag(depth_to_colours(depth, limits), f"depth of {when}: red near, blue far")]
        if reconstruction.rgb is not None:
            picture = shrunk(to_uint8(np.asarray(reconstruction.rgb[t], np.float32)), _LONGEST)
            tags.insert(0, picture_tag(picture, f"picture of {when}"))
        cells.append(f"<figure style='margin:0'>{''.join(tags)}<figcaption>{when}</figcaption></figure>")
    lines = html.escape("\n".join(summary_lines(reconstruction)))
    return (
        f"<div style='display:flex;flex-wrap:wrap;gap:6px;font-size:85%'>{''.join(cells)}</div>"
        f"<pre style='white-space:pre-wrap'>{lines}</pre>"
    )
