"""Geo4D at its released size: a window of 16x320x512, five steps, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from benchmarks.on_gpu.networks import geo4d_predictor, geo4d_size, random_weights, relative_error, window
from benchmarks.on_gpu.steps import Bench, Step
from geo4d.models.devices import DTYPES
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.weights import make_parts
from geo4d.types import Window

FRAMES = 16


def predictor_of(bench: Bench, dtype: str, **options: Any) -> Geo4DPredictor:
    """The held predictor in this type."""
    name = " ".join(["geo4d", dtype, *(f"{key}={value}" for key, value in options.items())])
    return bench.hold(name, lambda: geo4d_predictor(bench.device, dtype, bench.smallest, **options))


def windows_of(bench: Bench, count: int) -> list[Window]:
    return [window(FRAMES, geo4d_size(bench.smallest), index) for index in range(count)]


@torch.no_grad()
def run_stages(
    bench: Bench, predictor: Geo4DPredictor, windows: list[Window], result: dict[str, Any]
) -> None:
    """Encode, denoise, decode and read, each by itself, twice: the first pass chooses kernels."""
    size = geo4d_size(bench.smallest)
    rgb = torch.stack([one.rgb for one in windows])
    noises = [predictor._draw_noise(0, one.index, size) for one in windows]
    fps = torch.tensor([24 for _ in windows])
    for name in ("first", "again"):
        row: dict[str, Any] = {}
        result[name] = row
        with bench.measured(row, "encode"):
            colour = torch.cat([predictor.encode(p, n) for p, n in zip(rgb, noises, strict=True)])
        with bench.measured(row, "denoise"):
            latents = predictor.sample(colour, predictor._conditions(rgb), fps, noises)
        with bench.measured(row, "decode"):
            maps = [predictor.decode(latent) for latent in latents.split(1)]
        with bench.measured(row, "read"):
            found = [predictor.read(part, one, 0) for part, one in zip(maps, windows, strict=True)]
    result["latent_not_finite"] = float((~torch.isfinite(latents)).float().mean())
    result["raw_not_finite"] = float((~torch.isfinite(maps[0].point_map)).float().mean())
    result["valid"] = float(found[0].valid.float().mean()) if found[0].valid is not None else None
    result["weights_gib"] = round(
        sum(p.numel() * p.element_size() for m in predictor._modules() for p in m.parameters()) / 2**30, 3
    )
    result["chunks"] = dict(predictor._chunks.sizes)


def window_in(dtype: str, count: int, bench: Bench, result: dict[str, Any]) -> None:
    if bench.device.type == "cpu" and dtype == "float16":
        dtype = "float32"  # float16 is emulated there, a hundred times slower
    predictor = predictor_of(bench, dtype)
    windows = windows_of(bench, min(count, 2) if bench.smallest else count)
    run_stages(bench, predictor, windows, result)
    with bench.measured(result, "predict"):
        predictor.predict_batch(windows, seed=0)
    again = result["again"]
    parts = ", ".join(f"{name} {row['seconds']:.2f}" for name, row in again.items())
    peak = max(row.get("peak_gib", 0.0) for row in again.values())
    result["summary"] = f"{parts}; predict {result['predict']['seconds']:.2f} s; peak {peak} GiB"


def decode_chunks(bench: Bench, result: dict[str, Any]) -> None:
    """Decoding with more frames a call, and whether it changes the maps."""
    reference = None
    for chunk in (1, 4, 16):
        predictor = predictor_of(bench, "bfloat16")
        predictor._chunks.sizes["decode"] = chunk
        latent = torch.randn(1, 16, FRAMES, *(side // 8 for side in geo4d_size(bench.smallest)))
        latent = torch.linspace(-0.5, 0.5, latent.numel()).reshape(latent.shape)
        predictor.decode(latent)
        with bench.measured(result, f"chunk {chunk}"):
            maps = predictor.decode(latent)
        if reference is None:
            reference = maps
        result[f"chunk {chunk}"]["point_map"] = relative_error(maps.point_map, reference.point_map)
    bench.release()
    result["summary"] = ", ".join(
        f"{name}: {row['seconds']:.2f} s {row.get('peak_gib', 0)} GiB" for name, row in result.items()
    )


@torch.no_grad()
def rounding(bench: Bench, result: dict[str, Any]) -> None:
    """One call of the UNet and one decoded frame in each type, against float32 without TF32."""
    from benchmarks.on_gpu.networks import geo4d_config, geo4d_constants

    config = geo4d_config(bench.smallest)
    height, width = (side // 8 for side in geo4d_size(bench.smallest))
    generator = torch.Generator(bench.device).manual_seed(3)
    shape = (1, config.unet.in_channels, FRAMES, height, width)
    x = torch.randn(shape, generator=generator, device=bench.device)
    z = torch.randn(1, config.vae.latent_channels, height, width, generator=generator, device=bench.device)
    constants = geo4d_constants(config, bench.device)
    context = torch.cat([constants.text, constants.image], 1)
    time, fps = torch.tensor([499], device=bench.device), torch.tensor([24], device=bench.device)
    kinds = (
        ("float32", "tf32", "bfloat16", "float16") if bench.device.type == "cuda" else ("float32", "bfloat16")
    )
    outputs: dict[str, Any] = {}
    for part in ("unet", "point_vae"):
        for kind in kinds:
            dtype = DTYPES[kind.replace("tf32", "float32")]
            network: Any = random_weights(make_parts(config, [part])[part], bench.device, dtype)
            if part == "unet":
                keys = network.context_keys(context)
                call = partial(network, x, time, keys, fps)
            else:
                call = partial(network.decode_with_uncertainty, z)
            with tf32(kind == "tf32"):
                seconds = bench.median_seconds(call, 1 if bench.smallest else 3)
                outputs[kind] = call().float().cpu()
            row = relative_error(outputs[kind], outputs["float32"])
            result[f"{part} {kind}"] = {**seconds, **row}
            del network, call
    result["summary"] = ", ".join(
        f"{name} {row['median'] * 1e3:.0f} ms {row['rel_l2']:.1e}" for name, row in result.items()
    )


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 in matrix products and convolutions within the block, off behind it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


STEPS = [
    Step("geo4d", "window bfloat16", 12, partial(window_in, "bfloat16", 1)),
    Step("geo4d", "decode chunks", 6, decode_chunks, keeps=("geo4d bfloat16",)),
    Step("geo4d", "four windows bfloat16", 12, partial(window_in, "bfloat16", 4), keeps=("geo4d bfloat16",)),
    Step("geo4d", "window float16", 10, partial(window_in, "float16", 1)),
    Step("geo4d", "rounding", 10, rounding),
]
