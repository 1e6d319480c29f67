"""Does the camera solver find out that a lens zooms, and nothing where it does not? Rendered shots with exact truth.

    python benchmarks/zooms.py --output benchmarks/results/DATE-zooms.json

Every scene is drawn twice, with and without a zoom, and solved twice: as by default, and with one focal length, which is
the control. Errors are of the logarithm of the focal length: the median over the frames, and how far the course of the
zoom is from the true one (largest distance from that median).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.types import CameraSolveConfig
from geo4d.synthetic.render import make_scene, render_clip
from geo4d.synthetic.scene import SceneConfig
from geo4d.tracks.follow import track_points

SIZE = (144, 256)
KINDS = {
    "object_on_ground": (0.45, ("handheld", "dolly", "orbit", "pan", "static")),
    "street": (0.25, ("handheld", "dolly", "driving", "static")),
    "room": (0.20, ("handheld", "dolly", "orbit", "pan", "static")),
    "terrain": (0.05, ("handheld", "dolly")),
    "flying": (0.05, ("handheld", "dolly", "orbit")),
}
"""Share of the scenes, and cameras."""


def scenes(count: int, first_seed: int) -> list[SceneConfig]:
    """Without a zoom."""
    rng = np.random.default_rng(first_seed)
    drawn = []
    for number in range(count):
        kind = rng.choice(list(KINDS), p=[share for share, _ in KINDS.values()])
        drawn.append(
            SceneConfig(
                seed=first_seed + number,
                kind=str(kind),  # type: ignore[arg-type]
                camera=str(rng.choice(KINDS[kind][1])),  # type: ignore[arg-type]
                num_frames=24,
                fps=(8.0, 12.0, 16.0, 24.0)[number % 4],
                aspect=SIZE[0] / SIZE[1],
            )
        )
    return drawn


def solved(config: SceneConfig) -> list[dict[str, Any]]:
    """Rows of one scene: by default and with one focal length."""
    clip = render_clip(make_scene(config), SIZE)
    tracks = track_points([frame.float() / 255 for frame in clip.rgb])
    true = clip.intrinsics[:, 0, 0].double().log()
    rows = []
    for mode, zoom in (("default", None), ("one", False)):
        begin = time.process_time()
        motion = fit_cameras(tracks, config=CameraSolveConfig(zoom=zoom))
        seconds = time.process_time() - begin
        shot = max(motion.shots, key=lambda shot: shot.stop - shot.start)
        error = motion.intrinsics[:, 0, 0].log() - true
        rows.append(
            {
                "seed": config.seed,
                "kind": config.kind,
                "camera": config.camera,
                "zoom": float((true.max() - true.min()).exp()),
                "mode": mode,
                "found": shot.zoom,
                "motion": shot.kind,
                "focal_error": float(error.median()),
                "course_error": float((error - error.median()).abs().max()),
                "spread": shot.focal_spread if math.isfinite(shot.focal_spread) else None,
                "assumed": shot.focal_assumed,
                "cpu_s": round(seconds, 2),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and medians, by zoom and mode."""

    def of(zoomed: bool, mode: str) -> dict[str, Any]:
        mine = [row for row in rows if (row["zoom"] > 1) == zoomed and row["mode"] == mode]
        told = [row for row in mine if not row["assumed"] and row["motion"] in ("parallax", "rotation")]
        still = [row for row in mine if row["camera"] in ("static", "pan")]
        return {
            "shots": len(mine),
            "found_a_zoom": sum(row["found"] for row in mine),
            "focal_told": len(told),
            "focal_within_10_percent": sum(abs(row["focal_error"]) < 0.1 for row in told),
            "median_focal_error": float(np.median([abs(row["focal_error"]) for row in mine])),
            "median_course_error": float(np.median([row["course_error"] for row in mine])),
            "still_or_panning": len(still),
            "of_these_taken_for_a_path": sum(row["motion"] == "parallax" for row in still),
            "cpu_s": round(sum(row["cpu_s"] for row in mine), 1),
        }

    return {
        f"{'zoom' if zoomed else 'no zoom'}, {mode}": of(zoomed, mode)
        for zoomed in (True, False)
        for mode in ("default", "one")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=24, help="scenes, each with and without a zoom")
    parser.add_argument("--first-seed", type=int, default=9_917_000_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for scene in scenes(options.count, options.first_seed):
        for zoom in (True, False):
            rows += solved(replace(scene, zoom=zoom))
            print(json.dumps(rows[-2]), flush=True)
    found = {"first_seed": options.first_seed, "summary": summary(rows), "rows": rows}
    print(json.dumps(found["summary"], indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
