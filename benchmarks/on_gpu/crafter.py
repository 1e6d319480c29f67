"""GeometryCrafter at its released size, 448x768: prior, encoding, denoising, decoding; 25 and 110 frames."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.on_gpu.networks import (
    crafter_size,
    crafter_system,
    moge_prior,
    pictures,
    plane_prior,
    relative_error,
)
from benchmarks.on_gpu.networks import window as make_window
from benchmarks.on_gpu.steps import Bench, Step
from geo4d.models.geometrycrafter.prior_maps import frame_records, merge_statistics
from geo4d.models.geometrycrafter.windows import draw_noise

HALF = {"unet_dtype": "float16", "encoder_dtype": "float16", "decoder_dtype": "bfloat16"}
"""Encoders in float16, the decoder in bfloat16: its log depth may grow."""


def frame_count(bench: Bench, frames: int) -> int:
    return min(frames, 3) if bench.smallest else frames


def system_of(bench: Bench, name: str, **settings: Any) -> Any:
    return bench.hold(name, lambda: crafter_system(bench.device, bench.smallest, **settings))


def prior_stage(frames: int, batch: int, bench: Bench, result: dict[str, Any]) -> None:
    """The per-frame prior alone, float32 as published."""
    prior = bench.hold(f"moge {batch}", lambda: moge_prior(bench.device, bench.smallest, batch=batch))
    count = frame_count(bench, frames)
    window = make_window(count, crafter_size(bench.smallest))
    prior(make_window(1, crafter_size(bench.smallest)))
    with bench.measured(result, "prior"):
        found = prior(window)
    result["frames"] = count
    result["finite"] = bool(torch.isfinite(found.points).all())
    result["summary"] = f"{count} frames: {result['prior']['seconds']:.2f} s"


@torch.no_grad()
def run_stages(
    frames: int, name: str, settings: dict[str, Any], bench: Bench, result: dict[str, Any]
) -> None:
    """Encode, denoise, decode of a window; the first call of each on a few frames chooses kernels."""
    if bench.device.type == "cpu":  # float16 is emulated there
        settings = {key: "bfloat16" if value == "float16" else value for key, value in settings.items()}
    system = system_of(bench, name, **settings)
    size = crafter_size(bench.smallest)
    warm = frame_count(bench, 8)
    for count, into in ((warm, {}), (frame_count(bench, frames), result)):
        rgb = pictures(count, size)
        prior = plane_prior(rgb)
        statistics = merge_statistics(frame_records(prior.points, prior.mask))
        noise = draw_noise(count, system.latent_shape(size), 0)
        with bench.measured(into, "encode"):
            conditioning = system.encode(rgb, prior.points, prior.mask, statistics, size)
        with bench.measured(into, "denoise"):
            latents = system.sample(conditioning, noise)
        with bench.measured(into, "decode"):
            maps = list(system.iter_decode(latents, size))
        with bench.measured(into, "points"):
            points = system.points(maps)
    result["frames"] = count
    result["latent_not_finite"] = float((~torch.isfinite(latents)).float().mean())
    result["log_depth_not_finite"] = float((~torch.isfinite(maps[0].log_depth)).float().mean())
    result["points_shape"] = list(points.point_map.shape)
    stages = ", ".join(f"{k} {v['seconds']:.2f}" for k, v in result.items() if isinstance(v, dict))
    peak = max((v.get("peak_gib", 0) for v in result.values() if isinstance(v, dict)), default=0)
    result["summary"] = f"{count} frames: {stages}; peak {peak} GiB"


@torch.no_grad()
def decode_types(bench: Bench, result: dict[str, Any]) -> None:
    """A chunk of eight frames decoded in float32, TF32 and 16 bits, and with two frames at once."""
    from benchmarks.on_gpu.geo4d_window import tf32

    size = crafter_size(bench.smallest)
    count = frame_count(bench, 8)
    reference = None
    cuda = bench.device.type == "cuda"
    for kind in ("float32", "tf32", "bfloat16", "float16") if cuda else ("float32", "bfloat16"):
        dtype = kind.replace("tf32", "float32")
        system = crafter_system(bench.device, bench.smallest, decoder_dtype=dtype)
        latents = torch.linspace(-1, 1, count * 4 * (size[0] // 8) * (size[1] // 8)).reshape(
            count, 4, size[0] // 8, size[1] // 8
        )
        with tf32(kind == "tf32"):
            result[kind] = bench.median_seconds(partial(system.decode_clip, latents), 1)
            with bench.measured(result, f"{kind} memory"):
                maps = system.decode_clip(latents)
            if kind == "float32":
                reference = maps
                system.point_map_vae.decoder.frames_at_once = 2
                with bench.measured(result, "float32, two frames at once"):
                    parts = system.decode_clip(latents)
                result["float32, two frames at once"] |= relative_error(parts, maps)
        result[kind] |= relative_error(maps, reference)
        del system
    result["summary"] = ", ".join(
        f"{k} {row['median'] * 1e3:.0f} ms {row['rel_l2']:.1e}"
        for k, row in result.items()
        if "median" in row
    )


STEPS = [
    Step("crafter", "prior", 8, partial(prior_stage, 25, 1)),
    Step("crafter", "prior, eight at once", 8, partial(prior_stage, 24, 8)),
    Step("crafter", "25 frames as published", 30, partial(run_stages, 25, "crafter", {})),
    Step("crafter", "110 frames, 16 bits", 25, partial(run_stages, 110, "crafter half", HALF)),
    Step("crafter", "decoder types", 15, decode_types),
    Step("crafter", "110 frames as published", 75, partial(run_stages, 110, "crafter", {})),
]
