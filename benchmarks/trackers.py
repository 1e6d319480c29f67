"""Cameras from the tracks of every source that is installed, on recorded sequences with truth and on videos without.

    python benchmarks/trackers.py OUT.json --samples ROOT [--only SAMPLE ...] [--clips CLIP ...] [--frames 48]
        [--ways NAME ...]

ROOT holds the four sample folders named in ``fingerprints.SAMPLES``. Focal lengths are unknown to the solver. With truth:
RMSE of the camera centres after a similarity (ATE, metres), largest error of the rotations relative to the first camera
(degrees), and focal length over the true one minus one. Without: what the tracks say of the shot, and the share of them
that the cameras explain. CPU seconds are those of tracking alone, with one numerical thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fingerprints import SAMPLES  # also keeps everything to one numerical thread
from torch import Tensor

from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.types import MotionCameras
from geo4d.datasets.catalogue import load_reader
from geo4d.errors import MissingExtraError
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import rotation_angle, transform
from geo4d.results.provenance import machine
from geo4d.run.evidence import TRACKING_SIZE
from geo4d.tracks.sources import SOURCES, TrackMaker, track_maker
from geo4d.video.io import Video, fit_size


def against_truth(motion: MotionCameras, c2w: Tensor, K: Tensor) -> dict[str, float]:
    """Errors of cameras: centres, rotations, focal length."""
    centres, wanted = motion.c2w[:, :3, 3].double(), c2w[:, :3, 3]
    turn = motion.c2w[0, :3, :3].double().T @ motion.c2w[:, :3, :3].double()
    true_turn = c2w[0, :3, :3].T @ c2w[:, :3, :3]
    aligned = transform(fit_similarity(centres, wanted), centres)
    return {
        "ate_m": float((aligned - wanted).square().sum(1).mean().sqrt()),
        "rotation_max_deg": math.degrees(float(rotation_angle(turn.mT @ true_turn).max())),
        "focal_error": float((motion.intrinsics[:, 0, 0] / K[:, 0, 0] - 1).median()),
    }


def solve(frames: list[Tensor], make: TrackMaker) -> tuple[MotionCameras, dict[str, Any]]:
    """Cameras and what is known of them without truth."""
    begin = time.process_time()
    tracks = make(frames, None)
    tracking = time.process_time() - begin
    motion = fit_cameras(tracks)
    return motion, {
        "tracks": tracks.num_tracks,
        "observations": len(tracks.track),
        "tracking_cpu_s": round(tracking, 2),
        "kinds": [shot.kind for shot in motion.shots],
        "explained": round(float(motion.confidence.mean()), 3),
        "focal_over_width": round(float(motion.intrinsics[0, 0, 0]) / tracks.size[1], 4),
    }


def sample(root: Path, reader_name: str, folder: str) -> tuple[list[Tensor], Tensor, Tensor]:
    """Frames, true cameras [T, 4, 4] and [T, 3, 3] in pixels of the frames."""
    reader = load_reader(reader_name)
    name, path = next(iter(reader.find(root / folder).items()))
    sequence = reader.load(path, name)
    rgb = torch.from_numpy(np.asarray(sequence.rgb[:], np.float32))
    K = torch.from_numpy(np.asarray(sequence.intrinsics, np.float64))
    K[:, :2] *= rgb.shape[2] / sequence.size[1]
    return list(rgb), torch.from_numpy(np.asarray(sequence.c2w, np.float64)), K


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(SAMPLES), default=list(SAMPLES))
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--ways", nargs="+", default=[n for n, way in SOURCES.items() if not way.weights])
    parser.add_argument("--frames", type=int, default=48, help="of each clip")
    options = parser.parse_args()
    ways = {}
    for name in options.ways:
        try:
            ways[name] = track_maker(name)
        except MissingExtraError as error:
            print(f"left out: {error}")
    report = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "cases": {}}

    def add(name: str, told: dict[str, Any]) -> None:
        report["cases"][name] = told
        options.output.write_text(json.dumps(report, indent=1) + "\n")
        print(name, told, flush=True)

    for clip in options.clips:
        with Video(clip, stop=options.frames) as video:
            frames = list(video.frames(fit_size(video.size, TRACKING_SIZE)))
        for name, make in ways.items():
            add(f"{clip.name}/{name}", solve(frames, make)[1])
    for reader_name in options.only:
        folder = SAMPLES[reader_name]
        frames, c2w, K = sample(options.samples, reader_name, folder)
        for name, make in ways.items():
            motion, told = solve(frames, make)
            add(f"{folder}/{name}", told | against_truth(motion, c2w, K))


if __name__ == "__main__":
    main()
