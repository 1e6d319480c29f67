"""Fit the confidence curve (``geo4d/fusion/confidence.py``) and check it, on rendered clips that no benchmark uses.

    python benchmarks/confidence.py [--clips 24] [--held-back 8] [--cache FOLDER]

Every clip is reconstructed by the default run; its depth is multiplied by the one factor that fits the truth in the
median, and a pixel counts as right within ten percent. The last ``--held-back`` clips take no part in the fit: their
deciles and rank correlation, and the Brier score beside that of a constant, are printed apart.
"""

import argparse
import json
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.stats import spearmanr

import geo4d
from geo4d.fusion.confidence import HIGH, LOW, SIGNS, WITHIN, ConfidenceCurve
from geo4d.run import write
from geo4d.synthetic.render import make_scene, render_clip
from geo4d.synthetic.scene import sample_config

FIRST_SEED = 770_000_000
"""Seeds from here on; the held-out set, the training stream and the calibration of the network use others."""

SIZES = ((270, 480), (288, 384), (480, 270), (252, 480))
NUM_FRAMES = 24
PIXELS_PER_CLIP = 20_000


def render(number: int, cache: Path) -> dict:
    """Colour (uint8) and depth of a clip."""
    path = cache / f"{number:02d}.pt"
    if not path.is_file():
        size = SIZES[number % len(SIZES)]
        clip = render_clip(
            make_scene(sample_config(FIRST_SEED + number, NUM_FRAMES, size[1] / size[0], bank="train")), size
        )
        torch.save({"rgb": clip.rgb, "depth": clip.depth, "dynamic": clip.dynamic}, path)
    return torch.load(path, weights_only=True)


def observe(number: int, cache: Path) -> dict[str, torch.Tensor]:
    """Signs and relative error of some pixels of a default run."""
    path = cache / f"signs{number:02d}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    clip = render(number, cache)
    seen = []
    plain = write.iter_steady

    def recording(*arguments, **keywords):
        for maps in plain(*arguments, **keywords):
            seen.append((maps.depth, maps.signs))
            yield maps

    with mock.patch.object(write, "iter_steady", recording):
        geo4d.reconstruct(clip["rgb"].numpy(), output_size="model")
    depth = torch.stack([d for d, _ in seen])
    signs = torch.stack([s for _, s in seen], 1)
    truth = F.interpolate(clip["depth"][:, None].float(), depth.shape[1:], mode="nearest-exact")[:, 0]
    told = torch.isfinite(depth) & torch.isfinite(truth) & (truth > 0) & torch.isfinite(signs[:2]).all(0)
    factor = (truth[told] / depth[told]).median()
    error = (depth[told] * factor / truth[told] - 1).abs()
    chosen = torch.randperm(len(error), generator=torch.Generator().manual_seed(number))[:PIXELS_PER_CLIP]
    found = {"signs": signs[:, told][:, chosen].clone(), "error": error[chosen].clone()}
    torch.save(found, path)
    return found


def columns(signs: torch.Tensor) -> np.ndarray:
    """[n, 4]: the signs as the curve takes them, the last replaced by zero where unknown, and whether it is unknown."""
    known = torch.isfinite(signs[-1])
    logs = signs.clamp(LOW, HIGH)
    logs[-1] = torch.where(known, logs[-1], 0.0)
    return torch.cat([logs, (~known).float()[None]]).T.double().numpy()


def fit(x: np.ndarray, right: np.ndarray) -> ConfidenceCurve:
    """The most likely curve; no sign may make an error less likely."""
    count = len(SIGNS)

    def cost(p: np.ndarray) -> tuple[float, np.ndarray]:
        odds = p[0] + x @ p[1:]
        value = np.logaddexp(0, odds).mean() - (odds * right).mean()
        slope = 1 / (1 + np.exp(-odds)) - right
        return value, np.concatenate([[slope.mean()], (slope[:, None] * x).mean(0)])

    bounds = [(None, None)] + [(None, 0.0)] * count + [(None, None)]
    p = minimize(cost, np.zeros(count + 2), jac=True, bounds=bounds, method="L-BFGS-B").x
    offset, *weight, unknown = (round(float(v), 3) for v in p)
    return ConfidenceCurve(offset, tuple(weight), unknown)


def check(curve: ConfidenceCurve, clips: list[dict[str, torch.Tensor]]) -> dict:
    """Deciles of the claimed probability, and how its order agrees with the errors."""
    claimed = [curve(c["signs"][:, :, None])[:, 0] for c in clips]
    pooled, error = torch.cat(claimed), torch.cat([c["error"] for c in clips])
    rows = []
    for part in pooled.argsort().chunk(10):
        rows.append(
            {"claimed": float(pooled[part].mean()), "true": float((error[part] < WITHIN).float().mean())}
        )
    ranks = [float(spearmanr(a, -c["error"]).statistic) for a, c in zip(claimed, clips, strict=True)]
    return {
        "deciles": rows,
        "largest_gap": max(abs(r["claimed"] - r["true"]) for r in rows),
        "spearman_pooled": float(spearmanr(pooled, -error).statistic),
        "spearman_by_clip": ranks,
        "brier": float((pooled - (error < WITHIN).float()).square().mean()),
        "brier_constant": float((error < WITHIN).float().var(correction=0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--held-back", type=int, default=8)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    cache = options.cache or Path(tempfile.mkdtemp())
    cache.mkdir(parents=True, exist_ok=True)
    clips = []
    for number in range(options.clips):
        clips.append(observe(number, cache))
        print(f"clip {number}: right {float((clips[-1]['error'] < WITHIN).float().mean()):.3f}", flush=True)
    used, kept = clips[: -options.held_back], clips[-options.held_back :]
    x = np.concatenate([columns(c["signs"]) for c in used])
    right = np.concatenate([(c["error"] < WITHIN).double().numpy() for c in used])
    curve = fit(x, right)
    x = np.concatenate([columns(c["signs"]) for c in clips])
    everything = np.concatenate([(c["error"] < WITHIN).double().numpy() for c in clips])
    result = {
        "signs": SIGNS,
        "curve": vars(curve),
        "fit": check(curve, used),
        "held back": check(curve, kept),
        "curve of all": vars(fit(x, everything)),
    }
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
