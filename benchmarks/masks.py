"""Masks of moving things from motion: rendered scenes against their truth, and still samples where nothing moves.

    python benchmarks/masks.py [--data DIR] [--held-out N ...] [--json FILE]

Every rendered scene is scored twice: with its true cameras, which shows the masks alone, and with cameras solved from
its tracks. The moving-camera scenes are those of ``cameras.py --movers``. ``--data`` holds the still samples.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

from cameras import MOVER_SCENES, SAMPLES, score  # noqa: E402

from geo4d.cameras.types import MotionCameras, ShotMotion  # noqa: E402
from geo4d.datasets.catalogue import load_reader  # noqa: E402
from geo4d.evidence.frames import fit_motion  # noqa: E402
from geo4d.evidence.masks import MaskConfig, iter_motion_probability, mask_iou, tidy_mask  # noqa: E402
from geo4d.geometry.poses import inverse  # noqa: E402
from geo4d.run.evidence import SURELY_MOVING  # noqa: E402
from geo4d.synthetic.heldout import iter_heldout  # noqa: E402
from geo4d.synthetic.render import SyntheticClip, make_scene, render_clip  # noqa: E402
from geo4d.synthetic.scene import SceneConfig  # noqa: E402


def true_motion(clip: SyntheticClip) -> MotionCameras:
    """The true cameras, as a solver would hand them over."""
    c2w = inverse(clip.c2w[:1].double()) @ clip.c2w.double()
    still = [d[~m & torch.isfinite(d) & (d > 0)][::37] for d, m in zip(clip.depth, clip.dynamic, strict=True)]
    share = torch.tensor([0.01, 0.99])
    ranges = [torch.quantile(d, share) if len(d) else torch.full((2,), torch.nan) for d in still]
    moves = float(c2w[:, :3, 3].norm(dim=1).max()) > 1e-3
    turns = float((c2w[:, :3, :3] - torch.eye(3)).abs().max()) > 1e-4
    kind = "parallax" if moves else "rotation" if turns else "static"
    num_frames = len(c2w)
    shot = ShotMotion(
        0, num_frames, kind, float(clip.intrinsics[0, 0, 0]), 0.01, 5.0, 0.0, 500, 0.2, "the true cameras"
    )
    return MotionCameras(
        c2w=c2w.float(),
        intrinsics=clip.intrinsics.float(),
        size=(clip.rgb.shape[1], clip.rgb.shape[2]),
        confidence=torch.ones(num_frames),
        shots=(shot,),
        points=torch.zeros(0, 3),
        point_shot=torch.zeros(0, dtype=torch.long),
        depth_range=torch.stack(ranges).float(),
    )


def measure(motion: MotionCameras, rgb: torch.Tensor, moves: torch.Tensor) -> dict[str, float]:
    config = MaskConfig()
    begin = time.process_time()
    probability = torch.stack(list(iter_motion_probability(motion, rgb, config)))
    cpu = (time.process_time() - begin) / len(rgb)
    found = torch.stack([tidy_mask(p > config.cut, config.least_area) for p in probability])
    sure = probability > SURELY_MOVING
    both = float((found & moves).sum())
    return {
        "iou": mask_iou(found, moves),
        "precision": both / max(1.0, float(found.sum())),
        "recall": both / max(1.0, float(moves.sum())),
        "marked": float(found.float().mean()),
        "surely_moving_recall": float((sure & moves).sum() / moves.sum().clamp_min(1)),
        "surely_moving_false": float((sure & ~moves).sum() / (~moves).sum().clamp_min(1)),
        "cpu_s_per_frame": cpu,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="folder with the still samples")
    parser.add_argument("--held-out", type=int, nargs="*", default=[0, 2, 4, 29], help="held-out scenes")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def add(name: str, clip: SyntheticClip) -> None:
        rgb, solved = clip.rgb.float() / 255, fit_motion(clip.rgb.float() / 255)
        row = {
            "name": name,
            "dynamic_share": float(clip.dynamic.float().mean()),
            "ate_of_solved": score(solved.c2w, clip.c2w)["ate"],
            "true_cameras": measure(true_motion(clip), rgb, clip.dynamic),
            "solved_cameras": measure(solved, rgb, clip.dynamic),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)

    for seed, kind, camera in MOVER_SCENES:
        config = SceneConfig(seed, kind, camera, num_frames=24, fps=12.0, aspect=0.6, bank="heldout")
        add(f"{seed} {kind} {camera}", render_clip(make_scene(config), (288, 480)))
    for number, clip in zip(options.held_out, iter_heldout((288, 480), options.held_out), strict=True):
        add(f"held-out {number} {clip.config.kind} {clip.config.camera}", clip)
    for name, (reader_name, folder) in SAMPLES.items() if options.data is not None else ():
        reader = load_reader(reader_name)
        sequence_name, path = next(iter(reader.find(options.data / folder).items()))
        sequence = reader.load(path, sequence_name)
        assert sequence.rgb is not None
        rgb = torch.from_numpy(np.asarray(sequence.rgb[:], np.float32))
        nothing = torch.zeros(rgb.shape[:3], dtype=torch.bool)
        rows.append({"name": name, "solved_cameras": measure(fit_motion(rgb), rgb, nothing)})
        print(json.dumps(rows[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
