"""The published objective for cameras from depth maps, before and after its refining stage, beside the package's own.

    python benchmarks/published_cameras.py OUT.json --samples ROOT [--steps 1000] [--only NAME ...]

On four recorded sequences (``fingerprints.SAMPLES``) with true cameras: followed points, and as depth maps either the
recorded ones with the true focal lengths (``measured``), or those of a run of the bundled model with its focal lengths
(``predicted``). Per sequence: RMSE of camera centres after a similarity (ATE) and, where depth is in metres, after a
rigid motion (``ate_rigid``), errors between neighbouring frames (RPE: metres, degrees), and CPU seconds of the solve.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fingerprints import SAMPLES  # also keeps everything to one numerical thread
from torch import Tensor
from trackers import sample

from geo4d.cameras.published import published_cameras, windows_of
from geo4d.cameras.published_refine import refine_published
from geo4d.cameras.solve import solve_with_depth
from geo4d.datasets.catalogue import load_reader
from geo4d.evaluation.metrics.poses import pose_scores
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.results.provenance import machine
from geo4d.run.reconstruct import reconstruct
from geo4d.tracks.follow import track_points

DEPTH_WEIGHTS = (0.0, 0.1, 1.0)


def measured_depth(root: Path, reader_name: str, folder: str) -> Tensor:
    """[T, H, W] metres, NaN where unknown."""
    reader = load_reader(reader_name)
    name, path = next(iter(reader.find(root / folder).items()))
    depth = torch.from_numpy(np.asarray(reader.load(path, name).depth[:], np.float32))
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.nan)


def scores(c2w: Tensor, truth: Tensor, *, metric: bool) -> dict[str, float]:
    """ATE and RPE against true cameras."""
    found = pose_scores(c2w.double(), truth, with_auc=False)
    told = {"ate": found.ate, "rpe_trans": found.rpe_trans, "rpe_rot_deg": found.rpe_rot_deg}
    if metric:
        told["ate_rigid"] = pose_scores(c2w.double(), truth, alignment="se3", with_auc=False).ate
    return {name: round(float(value), 5) for name, value in told.items() if value is not None}


def timed(solve: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    return solve(), round(time.process_time() - begin, 1)


def compare(rgb: list[Tensor], truth: Tensor, K: Tensor, depth: Tensor, steps: int, *, metric: bool) -> dict:
    """Every way on one sequence: cameras, scores, seconds."""
    tracks = track_points(rgb)
    cases: dict[str, Any] = {}
    motion, seconds = timed(lambda: solve_with_depth(tracks, depth, K))
    cases["depth"] = {**scores(motion.c2w, truth, metric=metric), "cpu_s": seconds}
    windows = windows_of(tracks, depth)
    (start, curve), seconds = timed(lambda: published_cameras(windows, K, tracks.size, num_steps=steps))
    cases["published"] = {**scores(start.c2w(), truth, metric=metric), "cpu_s": seconds}
    cases["published"]["loss"] = [round(float(curve[k]), 8) for k in (0, -1)]
    for weight in DEPTH_WEIGHTS:
        (found, report), seconds = timed(lambda w=weight: refine_published(start, windows, depth_weight=w))
        told = {**scores(found.c2w(), truth, metric=metric), "cpu_s": seconds, "steps": report.num_steps}
        told["loss"] = [round(report.cost_start, 8), round(report.cost_end, 8)]
        cases[f"refined, depth {weight:g}"] = told
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=list(SAMPLES), default=list(SAMPLES))
    options = parser.parse_args()
    cases: dict[str, Any] = {}
    for name in options.only:
        folder = SAMPLES[name]
        rgb, truth, K = sample(options.samples, name, folder)
        depth = measured_depth(options.samples, name, folder)
        made = reconstruct(torch.stack(rgb), model="tiny")
        predicted = torch.from_numpy(np.asarray(made.depth[:], np.float32))
        predicted = torch.where(torch.isfinite(predicted), predicted, torch.nan)
        size = (rgb[0].shape[0], rgb[0].shape[1])
        own_K = resize_intrinsics(torch.from_numpy(np.asarray(made.intrinsics)).double(), made.size, size)
        for kind, maps, focal in (("measured", depth, K), ("predicted", predicted, own_K)):
            found = compare(rgb, truth, focal, maps, options.steps, metric=kind == "measured")
            for way, told in found.items():
                cases[f"{folder}/{kind}/{way}"] = told
                print(folder, kind, way, told, flush=True)
        report = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "steps": options.steps,
            "cases": cases,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
