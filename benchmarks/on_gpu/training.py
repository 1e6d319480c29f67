"""One training step of each family at the released size, and the loop itself with the smallest networks."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.on_gpu.networks import (
    crafter_networks,
    geo4d_config,
    geo4d_constants,
    pictures,
    random_weights,
)
from benchmarks.on_gpu.steps import Bench, Step
from geo4d.models.geo4d.weights import make_parts
from geo4d.training.data import Batch
from geo4d.training.full import Geo4DDiffusion, Geo4DPointDecoding


def geometry(count: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth of a slanted room with some sky, intrinsics, and cameras on a straight path."""
    y = torch.linspace(-1, 1, size[0])[:, None]
    x = torch.linspace(-1, 1, size[1])[None]
    steps = torch.linspace(0, 0.3, count)[:, None, None]
    depth = 4 + x + 0.5 * y - steps
    depth = torch.where(y < -0.9, torch.inf, depth)
    matrix = torch.tensor([[size[1] * 0.9, 0, size[1] / 2], [0, size[1] * 0.9, size[0] / 2], [0, 0, 1]])
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 2, 3] = steps[:, 0, 0]
    return depth, matrix.repeat(count, 1, 1), c2w


def geo4d_batch(count: int, size: tuple[int, int]) -> Batch:
    depth, intrinsics, c2w = (values[None] for values in geometry(count, size))
    rgb = pictures(count, size).movedim(-1, 1)[None] * 2 - 1
    nothing = torch.zeros(1, count, size[0] // 2, size[1] // 2)
    return Batch(
        rgb, depth, intrinsics, c2w, torch.arange(count).float()[None], nothing, nothing, intrinsics, c2w,
        torch.zeros(1, count), torch.tensor([3]),
    )  # fmt: skip


def take_steps(bench: Bench, task: Any, batch: Any, result: dict[str, Any], rate: float = 1e-5) -> None:
    """Two steps as the loop takes them: autocast, bounded gradient, fused AdamW, moving average."""
    from geo4d.training.optimiser import MovingAverage

    task = task.to(bench.device).train()
    batch = batch.to(bench.device)
    parameters = task.trained()
    result["trained"] = sum(p.numel() for p in parameters.values())
    optimiser = torch.optim.AdamW(list(parameters.values()), lr=rate, fused=True)
    average = MovingAverage(parameters, 0.999)
    losses = []
    for name in ("first step", "second step"):
        with bench.measured(result, name):
            with torch.autocast(bench.device.type, torch.bfloat16):
                loss, parts = task(batch)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
            optimiser.step()
            average.update(parameters)
            optimiser.zero_grad()
        losses.append(float(loss.detach()))
        result[name] |= {"loss": losses[-1], "norm": float(norm)}
        result[name]["parts"] = {key: float(value.detach()) for key, value in parts.items()}
    second = result["second step"]
    result["summary"] = f"{second['seconds']:.2f} s, peak {second.get('peak_gib')} GiB, losses {losses}"


def geo4d_diffusion(bench: Bench, result: dict[str, Any]) -> None:
    """A window of 16x256x320, weights in float32, activations recomputed."""
    config = geo4d_config(bench.smallest)
    parts: dict[str, Any] = {
        name: random_weights(module, bench.device)
        for name, module in make_parts(config, ["unet", "vae"]).items()
    }
    task = Geo4DDiffusion(
        parts["unet"].requires_grad_(True), parts["vae"], geo4d_constants(config, bench.device), config,
        ("disparity", "points", "rays"), checkpointing=True,
    )  # fmt: skip
    frames, size = (2, (64, 64)) if bench.smallest else (16, (256, 320))
    take_steps(bench, task, geo4d_batch(frames, size), result)


def geo4d_decoder(bench: Bench, result: dict[str, Any]) -> None:
    """Decoder and uncertainty on four point maps of 320x512."""
    config = geo4d_config(bench.smallest)
    vae: Any = random_weights(make_parts(config, ["point_vae"])["point_vae"], bench.device)
    frames, size = (2, (64, 64)) if bench.smallest else (4, (320, 512))
    take_steps(bench, Geo4DPointDecoding(vae), geo4d_batch(frames, size), result)


def crafter_windows(frames: int, size: tuple[int, int], with_prior: bool) -> Any:
    from geo4d.training.tasks.geometrycrafter.windows import Windows

    depth, intrinsics, _ = (values[None] for values in geometry(frames, size))
    rgb = pictures(frames, size).movedim(-1, 1)[None] * 2 - 1
    prior = depth * 1.1 if with_prior else depth[:, :0]
    prior = torch.where(torch.isfinite(prior), prior, torch.nan)
    kept = intrinsics if with_prior else intrinsics[:, :0]
    return Windows(rgb, depth, intrinsics, prior, kept, torch.tensor([3]), ("made up",))


def crafter_maps(bench: Bench, result: dict[str, Any]) -> None:
    """The point-map VAE with the frozen image decoder on pictures of 320x640."""
    from geo4d.models.geometrycrafter.vae import ImageVAE
    from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
    from geo4d.training.tasks.geometrycrafter.losses import PointMapWeights
    from geo4d.training.tasks.geometrycrafter.networks import FrozenNetworks, Sizes, smallest_sizes
    from geo4d.training.tasks.geometrycrafter.point_maps import PointMapCoding

    sizes = smallest_sizes() if bench.smallest else Sizes()
    vae = crafter_networks(bench.device, bench.smallest)["point_map_vae"]
    # As a fresh decoder's heads: with random ones the exponential of log depth would fill the loss.
    for layer in vae.decoder.time_conv_outs:
        layer.weight.mul_(0.01)
    with torch.device("meta"):
        image_vae = ImageVAE(sizes.image_vae, with_decoder=True)
    random_weights(image_vae, bench.device)
    weights = PointMapWeights(alphas=(4,)) if bench.smallest else PointMapWeights()
    task = PointMapCoding(vae, FrozenNetworks(image_vae), weights, FolderPlan(None))
    frames, size = (1, (64, 64)) if bench.smallest else (4, (320, 640))
    take_steps(bench, task, crafter_windows(frames, size, False), result)


def crafter_unet(bench: Bench, result: dict[str, Any]) -> None:
    """The diffusion network on a window of 25 frames of 320x640, activations recomputed."""
    from geo4d.training.tasks.geometrycrafter.denoising import Denoising
    from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
    from geo4d.training.tasks.geometrycrafter.networks import FrozenNetworks, Sizes, smallest_sizes

    sizes = smallest_sizes() if bench.smallest else Sizes()
    networks = crafter_networks(bench.device, bench.smallest)
    frozen = FrozenNetworks(networks["image_vae"], networks["image_encoder"], networks["point_map_vae"])
    task = Denoising(
        networks["unet"], sizes.unet_for("diff"), frozen, "diff", FolderPlan(None), checkpointing=True
    )
    frames, size = (2, (64, 64)) if bench.smallest else (25, (320, 640))
    take_steps(bench, task, crafter_windows(frames, size, True), result)


def the_loop(bench: Bench, result: dict[str, Any]) -> None:
    """Codec and two stages of the smallest model through the real loop: save, go on, export."""
    from geo4d.training.plans import StageRun
    from geo4d.training.recipes import find_stage
    from geo4d.training.stages import run_stage

    device = None if bench.device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)

        def run(
            stage: str, folder: Path, start: Path | None = None, loop: Any = None, resume: bool = False
        ) -> None:
            told = StageRun(folder, start, workers=0, num_validation=0, resume=resume, device=device)
            run_stage("tiny", "smallest", stage, told, loop)

        run("codec", root / "codec")
        start = root / "codec" / "weights" / "model.safetensors"
        stages = ("pairs",) if bench.smallest else ("pairs", "clips")
        for stage in stages:
            loop = replace(find_stage("tiny", "smallest", stage)[1].loop, num_steps=2)
            with bench.measured(result, f"{stage}, two steps"):
                run(stage, root / stage, start=start, loop=loop)
            with bench.measured(result, f"{stage}, gone on"):
                run(stage, root / stage, start=start, loop=replace(loop, num_steps=4), resume=True)
            lines = (root / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
            result[f"{stage} loss"] = json.loads(lines[-1]).get("loss")
            start = root / stage / "weights" / "model.safetensors"
    result["summary"] = "losses " + ", ".join(str(result[f"{stage} loss"]) for stage in stages)


STEPS = [
    Step("training", "geo4d diffusion 16x256x320", 15, geo4d_diffusion),
    Step("training", "geo4d decoder 4x320x512", 8, geo4d_decoder),
    Step("training", "crafter unet 25x320x640", 20, crafter_unet),
    Step("training", "crafter maps 4x320x640", 12, crafter_maps),
    Step("training", "the loop, smallest", 20, the_loop),
]
