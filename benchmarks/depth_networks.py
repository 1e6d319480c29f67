"""Networks of single pictures under our cameras and fusion, against each frame aligned by itself.

    python benchmarks/depth_networks.py [--scenes 12] [--samples FOLDER --tcmonodepth FILE] [--output FILE]

``synthetic``: rendered scenes, and a "network" that answers with true disparity times a drifting scale plus a drifting
shift, bent by a smooth field that also wobbles a little. ``samples``: recorded sequences and TCMonoDepth-small, by the
plug-in in ``tests/packages``. Rows: ``constant`` (one depth everywhere), ``per_frame`` (scale and shift of each frame
fitted to the same evidence by itself, then the same fusion), ``steady`` (the default), and ``tiny`` (the bundled model)
for the samples. AbsRel after one factor a sequence (median); flicker is the median |change of log error| of followed
static points a frame.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geo4d import reconstruct
from geo4d.evaluation.metrics.consistency import log_error_change, static_correspondences
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.models.monodepth.network import FrameDepths
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = (
    "tartanair-office-sample",
    "hololens-dvmvs-sample",
    "iclnuim-livingroom1-sample",
    "tum-fr1-rpy-sample",
)
SIZE = (144, 240)
FRAMES = 24
FIRST_SEED = 500
"""Scenes up to 25 decided on the settings; these did not."""
KINDS = (
    ("room", "dolly"), ("street", "driving"), ("object_on_ground", "orbit"), ("room", "handheld"), ("terrain", "dolly"),
    ("object_on_ground", "handheld"), ("street", "handheld"), ("room", "orbit"), ("object_on_ground", "dolly"),
    ("terrain", "driving"), ("street", "dolly"), ("room", "pan"),
)  # fmt: skip


class Synthetic:
    """The network: knows pictures by their look."""

    scale_kind = "affine"

    def __init__(self, rgb: Tensor, depth: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = len(rgb)
        disparity = torch.where(torch.isfinite(depth), 1 / depth, 0.0)
        disparity = disparity / disparity.flatten()[::7].quantile(0.98)
        scale = torch.exp(0.1 * torch.randn(count, generator=generator))
        shift = 0.1 * torch.randn(count, generator=generator)
        bend = 0.1 * torch.randn(1, 1, 4, 6, generator=generator)
        bend = bend + 0.03 * torch.randn(count, 1, 4, 6, generator=generator)
        bend = F.interpolate(bend, depth.shape[1:], mode="bicubic")[:, 0]
        answers = scale[:, None, None] * disparity * bend.exp() + shift[:, None, None]
        self.answers = 3 * (answers - answers.min())
        self.looks = self._look(rgb)

    def _look(self, rgb: Tensor) -> Tensor:
        return F.interpolate(rgb.movedim(-1, 1), (12, 16), mode="area").flatten(1)

    def __call__(self, rgb: Tensor) -> FrameDepths:
        nearest = (self._look(rgb)[:, None] - self.looks).abs().mean(-1).argmin(1)
        maps = F.interpolate(self.answers[nearest][:, None], rgb.shape[1:3], mode="bilinear", antialias=True)
        return FrameDepths(maps[:, 0])


def scores(
    found: Tensor, depth: Tensor, intrinsics: Tensor, c2w: Tensor, still: Tensor | None
) -> dict[str, float]:
    """AbsRel, share within 1.25, and flicker of depth maps of one size with the truth."""
    known = torch.isfinite(depth) & (depth > 0)
    usable = known & torch.isfinite(found) & (found > 0)
    ratio = found[usable] / depth[usable]
    ratio = ratio / ratio.median()
    changes = []
    for t in range(1, len(found)):
        pair = slice(t - 1, t + 1)
        if not bool(torch.isfinite(c2w[pair]).all()):
            continue
        moving = None if still is None else still[t - 1]
        source, target = static_correspondences(depth[pair], intrinsics[pair], c2w[pair], static=moving)
        changes.append(log_error_change(found[pair], depth[pair], source, target).abs())
    return {
        "abs_rel": float((ratio - 1).abs().mean()),
        "delta_125": float((torch.maximum(ratio, 1 / ratio) < 1.25).float().mean()),
        "flicker": float(torch.cat(changes).median()),
        "coverage": float(usable.sum() / known.sum()),
    }


def depth_maps(result: Any, size: tuple[int, int]) -> Tensor:
    """Depth of all frames at a size."""
    maps = torch.from_numpy(
        np.stack([np.asarray(result.depth[t], np.float32) for t in range(result.num_frames)])
    )
    return F.interpolate(maps[:, None], size, mode="nearest-exact")[:, 0]


def synthetic_row(number: int) -> dict[str, Any]:
    """One rendered scene."""
    from geo4d.synthetic.render import make_scene, render_clip
    from geo4d.synthetic.scene import SceneConfig

    kind, camera = KINDS[number % len(KINDS)]
    config = SceneConfig(seed=FIRST_SEED + number, kind=kind, camera=camera, num_frames=FRAMES)  # type: ignore[arg-type]
    clip = render_clip(make_scene(config), SIZE)
    truth = (clip.depth, clip.intrinsics, clip.c2w, ~clip.dynamic)
    rows: dict[str, Any] = {"constant": scores(torch.ones_like(clip.depth), *truth)}
    for name in ("per_frame", "steady"):
        model = DepthPredictor(
            Synthetic(clip.rgb.float() / 255, clip.depth, number),
            name="synthetic",
            licence="none",
            config=MonoDepthConfig(max_side=SIZE[1], alignment=name),  # type: ignore[arg-type]
        )
        result = reconstruct(
            clip.rgb.numpy(), model=model, fps=12, output_size="model", split_shots=False, tries=0
        )
        rows[name] = scores(depth_maps(result, SIZE), *truth)
        motion = result.diagnostics["motion"][0]["kind"]
    return {"name": f"{kind} {camera} {config.seed}", "motion": motion, "rows": rows}


def sample_row(root: Path, weights: Path, name: str) -> dict[str, Any]:
    """One recorded sequence."""
    from geo4d.datasets.catalogue import load_ground_truth
    from geo4d.models.base import load_predictor

    sequence = load_ground_truth(root / name)
    if sequence.rgb is None or sequence.depth is None or sequence.intrinsics is None or sequence.c2w is None:
        raise ValueError(f"expected pictures, depth and cameras in {name}")
    video = np.stack([np.asarray(sequence.rgb[t]) for t in range(sequence.num_frames)])
    depth = torch.from_numpy(np.stack([np.asarray(sequence.depth[t]) for t in range(sequence.num_frames)]))
    size = (SIZE[0] * 2, round(SIZE[0] * 2 * sequence.size[1] / sequence.size[0]))
    depth = F.interpolate(depth[:, None], size, mode="nearest-exact")[:, 0]
    k = resize_intrinsics(torch.from_numpy(np.asarray(sequence.intrinsics, np.float32)), sequence.size, size)
    truth = (depth, k, torch.from_numpy(np.asarray(sequence.c2w, np.float32)), None)
    rows: dict[str, Any] = {"constant": scores(torch.ones_like(depth), *truth)}
    for label in ("per_frame", "steady", "tiny"):
        if label == "tiny":
            model = load_predictor("tiny")
        else:
            model = load_predictor("geo4d_tcmonodepth:load", weights=weights, alignment=label)
        result = reconstruct(video, model=model, times_s=sequence.times_s, output_size="model", tries=0)
        rows[label] = scores(depth_maps(result, size), *truth)
        motion = result.diagnostics["motion"][0]["kind"]
    return {"name": name, "motion": motion, "rows": rows}


def table(title: str, found: list[dict[str, Any]]) -> str:
    """Rows and their means, as Markdown."""
    names = list(found[0]["rows"])
    lines = [
        f"## {title}",
        "",
        "| sequence | motion | " + " | ".join(f"{n}: AbsRel, flicker" for n in names) + " |",
    ]
    lines.append("|---" * (len(names) + 2) + "|")
    for row in found:
        values = [f"{row['rows'][n]['abs_rel']:.4f}, {row['rows'][n]['flicker']:.4f}" for n in names]
        lines.append(f"| {row['name']} | {row['motion']} | " + " | ".join(values) + " |")
    means = [
        ", ".join(
            f"{statistics.fmean(row['rows'][n][m] for row in found):.4f}" for m in ("abs_rel", "flicker")
        )
        for n in names
    ]
    return "\n".join([*lines, "| **mean** | | " + " | ".join(means) + " |", ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--samples", type=Path, help="folder of the recorded samples")
    parser.add_argument("--tcmonodepth", type=Path, help="weights of TCMonoDepth-small")
    parser.add_argument("--output", type=Path, help="another place than the dated one, without a suffix")
    options = parser.parse_args()
    if (options.samples is None) != (options.tcmonodepth is None):
        parser.error("expected --samples and --tcmonodepth together")
    parts: dict[str, list[dict[str, Any]]] = {"synthetic": [], "samples": []}
    for number in range(options.scenes):
        parts["synthetic"].append(synthetic_row(number))
        print(json.dumps(parts["synthetic"][-1]), file=sys.stderr, flush=True)
    if options.samples is not None:
        sys.path.insert(0, str(ROOT / "tests" / "packages" / "tcmonodepth" / "src"))
        for name in SAMPLES:
            parts["samples"].append(sample_row(options.samples, options.tcmonodepth, name))
            print(json.dumps(parts["samples"][-1]), file=sys.stderr, flush=True)
    titles = {
        "synthetic": "Rendered scenes, true disparity times a drifting affine, bent",
        "samples": "Recorded samples, TCMonoDepth-small",
    }
    text = "\n".join(table(titles[part], rows) for part, rows in parts.items() if rows)
    print(text)
    date = datetime.date.today().isoformat()
    target = options.output or ROOT / "benchmarks" / "results" / f"{date}-depth-networks"
    command = f"python benchmarks/depth_networks.py --scenes {options.scenes}"
    command += " --samples FOLDER --tcmonodepth FILE" if options.samples else ""
    target.with_suffix(".md").write_text(
        f"# Depth networks under our cameras ({date})\n\n`{command}`, two cores, torch {torch.__version__}. "
        f"What the rows are: see the script.\n\n{text}",
        encoding="utf-8",
    )
    target.with_suffix(".json").write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
