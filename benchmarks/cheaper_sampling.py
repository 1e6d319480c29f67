"""What sampling costs and what its cheaper ways lose: fewer steps, reused deep levels, every other frame, 8-bit layers.

    python benchmarks/cheaper_sampling.py RUN --family geometrycrafter|geo4d [--clips 16] [--output NAME.json]

RUN is a folder of ``geo4d train all --preset reduced``. Errors are those of its trained networks on held-out clips, cost
is twofold: CPU time of the reduced network, and the share of the arithmetic of the full-size UNet (counted, not run).
Beside the rows stand a constant depth and the prior (GeometryCrafter) or the mean layout of training scenes (Geo4D).
8-bit rows need torchao, or openvino with nncf; without them they are left out with a line. One thread.
"""

import argparse
import copy
import json
import logging
import sys
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


LINEAR_IN_8_BITS = ("weights", "weights and inputs")
"""What torchao's rows have in 8 bits."""


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
    for kind in LINEAR_IN_8_BITS:
        if (changed := in_8_bits(task.unet, kind)) is not None:
            ways[f"linear layers: {kind} in 8 bits"] = sampled({}, changed)
    windows = held_out(priors.StandInPrior(seed=303), clips, 8)

    def calibrate() -> None:
        for window in held_out(priors.StandInPrior(seed=404), 2, 8):
            (conditioning,) = encode_conditions(window, task.frozen)
            noise = task.first_noise(window, conditioning)
            task.sample_from(task.unet, conditioning, noise, task.sampling)

    if (quantised := by_openvino(task.unet, calibrate)) is not None:
        ways["weights and activations in 8 bits (OpenVINO)"] = sampled({}, quantised)
    scores: dict[str, list[dict[str, float]]] = {}
    for window in windows:
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


class OpenVinoUNet(nn.Module):
    """A UNet quantised by nncf (8-bit weights and activations) and run by OpenVINO, at the sizes it was recorded at."""

    def __init__(self, unet: nn.Module, recorded: list[tuple[Any, ...]]) -> None:
        super().__init__()
        import nncf
        import openvino

        first = recorded[0]
        self.tensors = [i for i, value in enumerate(first) if isinstance(value, Tensor)]
        network = openvino.convert_model(
            _OfTensors(unet, first, self.tensors), example_input=tuple(first[i] for i in self.tensors)
        )
        items = [tuple(call[i].numpy() for i in self.tensors) for call in recorded]
        network = nncf.quantize(
            network, nncf.Dataset(items), subset_size=len(items), model_type=nncf.ModelType.TRANSFORMER
        )
        self.request = (
            openvino.Core().compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
        )

    def forward(self, *arguments: Any) -> Tensor:
        """As the network that it was made from."""
        given = [torch.as_tensor(arguments[i]).contiguous().numpy() for i in self.tensors]
        return torch.from_numpy(self.request.infer(given)[0].copy())


class _OfTensors(nn.Module):
    """A network as a function of its tensor arguments alone; the others stay as they were in one call."""

    def __init__(self, network: nn.Module, call: tuple[Any, ...], tensors: list[int]) -> None:
        super().__init__()
        self.network, self.call, self.tensors = network, list(call), tensors

    def forward(self, *given: Tensor) -> Tensor:
        arguments = list(self.call)
        for i, value in zip(self.tensors, given, strict=True):
            arguments[i] = value
        return self.network(*arguments)


def recorded_calls(unet: nn.Module, run: Callable[[], object]) -> list[tuple[Any, ...]]:
    """Arguments of the network's calls while ``run`` runs, without the cache; numbers as tensors."""
    calls: list[tuple[Any, ...]] = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        *kept, _ = arguments
        calls.append(tuple(torch.tensor(one) if isinstance(one, float) else one for one in kept))

    hook = unet.register_forward_pre_hook(note)
    run()
    hook.remove()
    return calls


def by_openvino(unet: nn.Module, run: Callable[[], object]) -> nn.Module | None:
    """The network in OpenVINO's 8 bits; None without openvino and nncf."""
    try:
        import nncf
        import openvino
    except ImportError:
        print("openvino and nncf are not installed: no row for them", flush=True)
        return None
    print("openvino", openvino.__version__, "nncf", nncf.__version__, flush=True)
    return OpenVinoUNet(unet, recorded_calls(unet, run))


def rows_of_geo4d(run: Path, clips: int) -> dict[str, dict[str, float]]:
    """Scores of every way on held-out sequences of the benchmark, each window of the network on its own."""
    from geo4d.evaluation.layouts import lay_out
    from geo4d.evaluation.predict import run_sequence
    from geo4d.evaluation.settings import EvaluationSettings
    from geo4d.models.base import load_predictor
    from geo4d.models.geo4d.pipeline import Geo4DPredictor

    predictor = load_predictor("geo4d", weights=run / "weights", device="cpu", dtype="float32")
    assert isinstance(predictor, Geo4DPredictor)
    settings = EvaluationSettings(model="geo4d", network_only=True, limit=clips)
    plan = lay_out("synthetic", None, settings)
    names = list(plan.paths)[:clips]
    scores: dict[str, list[dict[str, float]]] = {}

    def score_all(row: str, **options: int) -> None:
        predictor.options = replace(default, **options)
        for name in names:
            started = time.process_time()
            found = run_sequence(plan, settings, name, predictor)
            kept = {key: found[key] for key in ("abs_rel", "delta_125")} | {"change": found["depth_change"]}
            kept["whole_s"] = time.process_time() - started
            scores.setdefault(row, []).append(kept)
            if row == next(iter(WAYS)):
                scores.setdefault("template", []).append(found["trivial"]["template"])
        print(row, mean_of(scores[row]), flush=True)

    default, unet = predictor.options, predictor.unet
    for row, options in WAYS.items():
        score_all(row, **options)
    predictor.options = default
    quantised = by_openvino(
        unet, lambda: [run_sequence(plan, settings, name, predictor) for name in names[:1]]
    )
    if quantised is not None:
        predictor.unet = _Keyed(quantised, unet)  # type: ignore[assignment]
        score_all("weights and activations in 8 bits (OpenVINO)")
    for kind in LINEAR_IN_8_BITS:
        if (changed := in_8_bits(unet, kind)) is not None:
            predictor.unet = changed  # type: ignore[assignment]
            score_all(f"linear layers: {kind} in 8 bits")
    return {row: mean_of(found) for row, found in scores.items()}


class _Keyed(nn.Module):
    """A quantised network that projects contexts as the one it was made from."""

    def __init__(self, network: nn.Module, unet: Any) -> None:
        super().__init__()
        self.network, self.context_keys = network, unet.context_keys

    def forward(self, *arguments: Any) -> Tensor:
        return self.network(*arguments)


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every value over the clips where it is known."""
    from geo4d.training.tasks.geometrycrafter.scores import mean_scores

    return mean_scores([{key: value for key, value in row.items() if value is not None} for row in rows])


def write_result(found: dict[str, Any], output: Path | None) -> None:
    """Print a result, and keep it where a file is named."""
    text = json.dumps(found, indent=1)
    print(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


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
    write_result(found, options.output)


if __name__ == "__main__":
    main()
