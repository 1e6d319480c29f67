"""What sampling costs and what its cheaper ways lose: fewer steps, reused deep levels, every other frame, 8-bit layers.

    python benchmarks/cheaper_sampling.py RUN --family geometrycrafter|geo4d [--clips 16] [--output NAME.json]

RUN is a folder of ``geo4d train all --preset reduced``. Errors are those of its trained networks on held-out clips, cost
is twofold: CPU time of the reduced network, and the share of the arithmetic of the full-size UNet (counted, not run). A
constant depth stands beside the rows. 8-bit rows need torchao; without it they are left out with a line. One thread.
"""

import argparse
import copy
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from geo4d.models.deep_cache import DeepCache
from geo4d.models.light_decoder import count_flops

ROOT = Path(__file__).resolve().parent.parent

WAYS: dict[str, dict[str, int]] = {
    "5 steps, as published": {},
    "3 steps": {"num_steps": 3},
    "2 steps": {"num_steps": 2},
    "1 step": {"num_steps": 1},
    "5 steps, 3 of them full": {"cache_interval": 2},
    "5 steps, 2 of them full": {"cache_interval": 3},
    "5 steps, 1 of them full": {"cache_interval": 5},
}
"""Row -> options of the model."""

FRAMES = {"geometrycrafter": 25, "geo4d": 16}


def passes(options: dict[str, int]) -> tuple[int, int]:
    """Full passes of the UNet, and those that read the cache."""
    steps, interval = options.get("num_steps", 5), options.get("cache_interval", 1)
    full = -(-steps // interval)
    return full, steps - full


def costs_of_a_pass(family: str) -> tuple[int, int]:
    """Floating-point operations of a full pass at full size, and of one that reads the cache."""
    frames = FRAMES[family]

    def of_calls(calls: int) -> int:
        def geometrycrafter(unet: Any) -> None:
            cache = DeepCache(calls)
            for _ in range(calls):
                unet(
                    torch.zeros(1, frames, 12, 56, 96),
                    0.1,
                    torch.zeros(1, frames, 1024),
                    torch.zeros(1, 3),
                    cache,
                )

        def geo4d(unet: Any) -> None:
            cache, config = DeepCache(calls), unet.config
            tokens = config.text_tokens + config.image_tokens_per_frame
            keys = unet.context_keys(torch.zeros(1, tokens, config.context_dim))
            for _ in range(calls):
                seen = torch.zeros(1, config.in_channels, frames, 40, 64)
                unet(seen, torch.zeros(1, dtype=torch.long), keys, torch.zeros(1), cache)

        if family == "geometrycrafter":
            from geo4d.models.geometrycrafter.unet import FrameTokenUNet
            from geo4d.training.tasks.geometrycrafter.networks import Sizes

            return count_flops(lambda: FrameTokenUNet(**asdict(Sizes().unet_for("diff"))), geometrycrafter)
        from geo4d.models.geo4d.unet import UNet

        return count_flops(UNet, geo4d)

    full = of_calls(1)
    return full, of_calls(2) - full


def in_8_bits(unet: nn.Module, kind: str) -> nn.Module | None:
    """A copy whose linear layers are in 8 bits; None without torchao."""
    try:
        from torchao.quantization import (
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )
    except ImportError:
        print(f"torchao is not installed: no row for {kind}", flush=True)
        return None
    changed = copy.deepcopy(unet)
    quantize_(
        changed, Int8WeightOnlyConfig() if kind == "weights" else Int8DynamicActivationInt8WeightConfig()
    )
    return changed


def rows_of_geometrycrafter(run: Path, clips: int) -> dict[str, dict[str, float]]:
    """Scores and UNet seconds of every way, on windows of 8 frames with the stand-in prior."""
    from benchmarks.reduced_geometrycrafter import held_out, load_task
    from geo4d.training.tasks.geometrycrafter import priors
    from geo4d.training.tasks.geometrycrafter.denoising import decode_depth, encode_conditions
    from geo4d.training.tasks.geometrycrafter.scores import mean_scores, window_scores

    stage = "unet-long" if (run / "unet-long" / "weights").is_dir() else "unet"
    task = load_task(run, stage)
    networks = {"": task.unet}
    for kind in ("weights", "weights and inputs"):
        if (changed := in_8_bits(task.unet, kind)) is not None:
            networks[kind] = changed
    ways: dict[str, Callable[[Any, Tensor], Tensor]] = {}

    def sampled(options: dict[str, int], network: Any) -> Callable[[Any, Tensor], Tensor]:
        config = replace(task.sampling, **options)
        return lambda conditioning, noise: task.sample_from(network, conditioning, noise, config)

    def every_other(conditioning: Any, noise: Tensor) -> Tensor:
        few = task.sample_from(task.unet, conditioning[::2], noise[::2], task.sampling)
        found = noise.new_empty(noise.shape)
        found[::2] = few
        between = (few[:-1] + few[1:]) / 2
        found[1::2] = torch.cat([between, few[-1:]])[: len(found[1::2])]
        return found

    for name, options in WAYS.items():
        ways[name] = sampled(options, task.unet)
    ways["every other frame, latents between them averaged"] = every_other
    for kind, network in networks.items():
        if kind:
            ways[f"linear layers: {kind} in 8 bits"] = sampled({}, network)
    scores: dict[str, list[dict[str, float]]] = {}
    for window in held_out(priors.StandInPrior(seed=303), clips, 8):
        truth, prior = window.depth[0], window.prior_depth[0]
        believed = torch.isfinite(prior)
        (conditioning,) = encode_conditions(window, task.frozen)
        noise = task.first_noise(window, conditioning)
        assert noise is not None
        vae, factor = task.frozen.point_map_vae, task.frozen.image_vae.config.scaling_factor
        depths: dict[str, Tensor] = {}
        seconds: dict[str, float] = {}
        for name, way in ways.items():
            start = time.process_time()
            latents = way(conditioning, noise)
            seconds[name] = time.process_time() - start
            depths[name] = decode_depth(latents, vae=vae, factor=factor)
        default = depths["5 steps, as published"]
        for name, depth in {"constant": torch.ones_like(prior), "prior": prior, **depths}.items():
            row = window_scores(depth, truth, believed)
            if name in seconds:
                row |= {
                    "unet_s": seconds[name],
                    "from_default": window_scores(depth, default, believed)["abs_rel"],
                }
            scores.setdefault(name, []).append(row)
    return {name: mean_scores(rows) for name, rows in scores.items()}


def rows_of_geo4d(run: Path, clips: int) -> dict[str, dict[str, float]]:
    """Scores of every way by ``geo4d evaluate synthetic``, each window of the network on its own."""
    found: dict[str, dict[str, float]] = {}
    for name, options in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = [
                sys.executable, "-m", "geo4d", "evaluate", "synthetic", "--model", "geo4d", "--device", "cpu",
                "--weights", str(run / "weights"), "--network-only", "--limit", str(clips), "--quiet",
                "--json", str(result), *(f"--model-option={key}={value}" for key, value in options.items()),
            ]  # fmt: skip
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            said = json.loads(result.read_text(encoding="utf-8"))
        mean = said["mean"]
        found[name] = {
            "abs_rel": mean["abs_rel"], "delta_125": mean["delta_125"], "change": mean["depth_change"],
            "predicting_s": mean["predicting_seconds"],
        }  # fmt: skip
        found["template"] = {key: said["template"][key] for key in ("abs_rel", "delta_125")}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--family", choices=list(FRAMES), required=True)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = (rows_of_geo4d if options.family == "geo4d" else rows_of_geometrycrafter)(
            options.run, options.clips
        )
    full, reading = costs_of_a_pass(options.family)
    for name, way in WAYS.items():
        computed, reused = passes(way)
        rows[name]["share_of_flops"] = (computed * full + reused * reading) / (5 * full)
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/cheaper_sampling.py RUN --family {options.family} --clips {options.clips}",
        "torch": torch.__version__,
        "tera_flops_of_a_full_pass": full / 1e12,
        "share_of_a_pass_that_reads": reading / full,
        "rows": rows,
    }
    print(json.dumps(found, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
