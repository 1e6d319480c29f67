"""GeometryCrafter trained at reduced width: does each stage beat its prior on clips that no stage has seen?

    geo4d data pack --family geometrycrafter --preset reduced --stage maps --clips 1200 --workers 2 -o SHARDS
    geo4d train all --family geometrycrafter --preset reduced --shards SHARDS -o RUN
    python benchmarks/reduced_geometrycrafter.py RUN [--clips 48] [--output benchmarks/results/NAME.json]

Rows: a constant depth; the prior; the prior averaged over neighbouring frames (no network); the truth through the
point-map VAE after each of its stages; the answers of the UNet after each of its stages. Both priors: the stand-in made
from the truth, which the networks were trained with, and the bundled model frame by frame, which is what a user gets.
All rows are scored on the same pixels, where the prior believes itself, after one factor per window.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from geo4d.training.tasks.geometrycrafter import networks, priors
from geo4d.training.tasks.geometrycrafter.clips import render_clip
from geo4d.training.tasks.geometrycrafter.denoising import Denoising, decode_depth, encode_truth
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.point_maps import normalised
from geo4d.training.tasks.geometrycrafter.presets import find_stage
from geo4d.training.tasks.geometrycrafter.scores import mean_scores, window_scores
from geo4d.training.tasks.geometrycrafter.stages import generated_source
from geo4d.training.tasks.geometrycrafter.windows import Windows, cut_window

SEED = 3_150_029
"""Added to the preset's seed: these clips neither train nor check a run while it trains."""


def held_out(prior: priors.PriorOfClip, count: int, frames: int) -> list[Windows]:
    """Windows of whole clips with what the prior says of them."""
    preset, stage = find_stage("reduced", "unet-long")
    source = generated_source(preset, stage, SEED)
    windows = []
    for number in range(count):
        clip = render_clip(source, number)
        windows.append(
            cut_window(clip, prior(clip), torch.arange(frames).numpy(), stage.cut.size, 1.0, number)
        )
    return windows


def averaged(depth: Tensor, reach: int = 2) -> Tensor:
    """Geometric mean of the prior over frames t - reach .. t + reach, each frame brought to the same median first."""
    believed = torch.isfinite(depth)
    logs = torch.where(believed, depth, 1.0).log()
    medians = torch.stack([one[known].median() for one, known in zip(logs, believed, strict=True)])
    logs = torch.where(believed, logs - medians[:, None, None], 0.0)
    found = []
    for t in range(len(depth)):
        near = slice(max(0, t - reach), t + reach + 1)
        count = believed[near].sum(0)
        found.append(logs[near].sum(0) / count.clamp(min=1))
    return torch.where(believed, torch.stack(found).exp(), torch.nan)


def load_task(run: Path, stage: str) -> Denoising:
    """Networks of a stage's folder, as its task samples them."""
    folder = run / stage / "weights"
    frozen = networks.FrozenNetworks(
        networks.load_image_vae(folder),
        networks.load_image_encoder(folder),
        networks.load_point_map_vae(folder),
    )
    unet, config = networks.load_unet(folder, "diff")
    return Denoising(unet.eval(), config, frozen, "diff", FolderPlan(None))


class RoundTrip:
    """The truth through the point-map VAE as a stage left it."""

    def __init__(self, run: Path, stage: str) -> None:
        folder = run / stage / "weights"
        self.frozen = networks.FrozenNetworks(
            networks.load_image_vae(folder), None, networks.load_point_map_vae(folder)
        )

    def depth(self, window: Windows) -> Tensor:
        """What the point-map decoder makes of it."""
        factor = self.frozen.image_vae.config.scaling_factor
        return decode_depth(
            encode_truth(window, self.frozen)[0], vae=self.frozen.point_map_vae, factor=factor
        )

    def identity(self, window: Windows) -> dict[str, float]:
        """Error of the disparity picture that the frozen image decoder reads from the latent, and from its own."""
        image_vae = self.frozen.image_vae
        picture, count = normalised(window)[0].picture, window.num_frames
        own = image_vae.decode(image_vae.encode(picture), count)
        latent = encode_truth(window, self.frozen)[0] / image_vae.config.scaling_factor
        seen = image_vae.decode(latent, count)
        return {
            "identity": float((seen - picture).square().mean()),
            "identity_of_picture": float((own - picture).square().mean()),
        }


def score_window(
    window: Windows, tasks: Mapping[str, Denoising], trips: Mapping[str, RoundTrip]
) -> dict[str, dict[str, float]]:
    """All rows of one window."""
    prior = window.prior_depth[0]
    answers = {"constant": torch.ones_like(prior), "prior": prior, "prior averaged": averaged(prior)}
    answers |= {f"truth through {name}": trip.depth(window) for name, trip in trips.items()}
    for name, task in tasks.items():
        vae, factor = task.frozen.point_map_vae, task.frozen.image_vae.config.scaling_factor
        answers[name] = decode_depth(task.answers(window)[""], vae=vae, factor=factor)
    believed = torch.isfinite(prior)
    found = {name: window_scores(one, window.depth[0], believed) for name, one in answers.items()}
    for name, trip in trips.items():
        found[f"truth through {name}"] |= trip.identity(window)
    return found


def stage_logs(run: Path, stages: Iterable[str]) -> dict[str, dict[str, float]]:
    """Steps and CPU seconds of the trainer."""
    found = {}
    for stage in stages:
        last = json.loads((run / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        found[stage] = {"steps": last["step"], "cpu_seconds": round(last["cpu_seconds"], 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds: dict[str, priors.PriorOfClip] = {
        "stand-in": priors.StandInPrior(seed=101),
        "tiny": priors.find_prior("tiny", "cpu"),
    }
    stages = [name for name in ("unet", "unet-long") if (options.run / name / "weights").is_dir()]
    tasks = {name: load_task(options.run, name) for name in stages}
    trips = {name: RoundTrip(options.run, name) for name in ("maps", "maps-video")}
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/reduced_geometrycrafter.py RUN --clips {options.clips}",
        "torch": torch.__version__,
        "clips": options.clips,
        "stages": stage_logs(options.run, ("pictures", "maps", "maps-video", *stages)),
        "tables": {},
    }
    for (kind, prior), frames in itertools.product(kinds.items(), options.frames):
        rows: dict[str, list[dict[str, float]]] = {}
        for window in held_out(prior, options.clips, frames):
            with torch.no_grad():
                scored = score_window(window, tasks, trips)
            for name, scores in scored.items():
                rows.setdefault(name, []).append(scores)
        table = {name: mean_scores(scores) for name, scores in rows.items()}
        found["tables"][f"{kind}, {frames} frames"] = table
        for name, scores in table.items():
            values = " ".join(f"{key} {value:.4f}" for key, value in scores.items())
            print(f"{kind:9} {frames:3} {name:24} {values}", flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
