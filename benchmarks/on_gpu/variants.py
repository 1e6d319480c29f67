"""What the machine gives, TF32 in the prior, one block compiled, and where the time of a denoising step goes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.on_gpu.crafter import frame_count
from benchmarks.on_gpu.geo4d_window import FRAMES, predictor_of, tf32
from benchmarks.on_gpu.networks import (
    crafter_size,
    geo4d_config,
    geo4d_constants,
    geo4d_size,
    moge_prior,
    relative_error,
    window,
)
from benchmarks.on_gpu.steps import Bench, Step


def ceilings(bench: Bench, result: dict[str, Any]) -> None:
    """Matrix products in each type and a copy: what nothing can be faster than."""
    side = 256 if bench.smallest else 8192
    kinds = ("bfloat16", "float16", "tf32", "float32") if bench.device.type == "cuda" else ("float32",)
    for kind in kinds:
        dtype = getattr(torch, kind.replace("tf32", "float32"))
        a, b = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
        with tf32(kind == "tf32"):
            seconds = bench.median_seconds(lambda a=a, b=b: a @ b, 5)["median"]  # type: ignore[misc]
        result[f"{kind}_tflops"] = round(2 * side**3 / seconds / 1e12, 1)
    source = torch.randn(2**20 if bench.smallest else 2**29, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.median_seconds(lambda: target.copy_(source), 5)["median"]
    result["copy_gb_per_s"] = round(2 * source.numel() * 4 / seconds / 1e9)


class DenoiseStep:
    """One call of the held Geo4D UNet as the sampler makes it."""

    def __init__(self, bench: Bench) -> None:
        config = geo4d_config(bench.smallest)
        self.unet = predictor_of(bench, "bfloat16").unet
        height, width = (side // 8 for side in geo4d_size(bench.smallest))
        self.x = torch.randn(1, config.unet.in_channels, FRAMES, height, width, device=bench.device)
        constants = geo4d_constants(config, bench.device)
        self.keys = self.unet.context_keys(torch.cat([constants.text, constants.image], 1))
        self.time = torch.tensor([499], device=bench.device)
        self.fps = torch.tensor([24], device=bench.device)

    def __call__(self) -> Tensor:
        return self.unet(self.x, self.time, self.keys, self.fps)


@torch.no_grad()
def profile(bench: Bench, result: dict[str, Any]) -> None:
    """The costliest kernels of a denoising step and of decoding a frame."""
    step = DenoiseStep(bench)
    predictor = predictor_of(bench, "bfloat16")
    latent = torch.linspace(-1, 1, 16 * FRAMES * step.x.shape[-2] * step.x.shape[-1])
    latent = latent.reshape(1, 16, FRAMES, *step.x.shape[-2:])
    for name, call in (("denoise", step), ("decode", lambda: predictor.decode(latent))):
        call()
        bench.sync()
        result[name] = kernels(bench, call)
    result["summary"] = "; ".join(
        f"{row['percent']} % {row['name'][:36]}" for row in result["denoise"]["top"]
    )


def kernels(bench: Bench, call: Any) -> dict[str, Any]:
    """Device time by kernel (by operator on a CPU), the ten costliest."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    cuda = bench.device.type == "cuda"
    with torch_profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as recorded:
        call()
        bench.sync()
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = recorded.key_averages()
    if cuda:  # kernels alone: an operator's own device time would count them a second time
        events = [e for e in events if str(e.device_type).endswith("CUDA")]
    times = sorted(((float(getattr(e, name)), e.key, e.count) for e in events), reverse=True)
    total = sum(time for time, _, _ in times) or 1.0
    top = [
        {"name": key, "percent": round(100 * time / total, 1), "ms": round(time / 1e3, 3), "calls": count}
        for time, key, count in times[:10]
    ]
    return {"total_ms": round(total / 1e3, 2), "kernels": len(times), "top": top[:10]}


@torch.no_grad()
def compiled_block(bench: Bench, result: dict[str, Any]) -> None:
    """The first stage of the UNet (residual block and both transformers), as it is and compiled."""
    step = DenoiseStep(bench)
    stage = step.unet.down[0]
    width = step.unet.config.model_channels
    height, columns = step.x.shape[-2:]
    dtype = stage.residual.conv_in.weight.dtype
    x = torch.randn(FRAMES, width, height, columns, device=bench.device)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    embedding = torch.randn(FRAMES, 4 * width, device=bench.device).to(dtype)
    arguments = (x, embedding, [step.keys.layers[0]], FRAMES, False)
    result["eager"] = bench.median_seconds(lambda: stage(*arguments), 5)
    reference = stage(*arguments)
    backend = "eager" if bench.smallest else "inductor"  # captured alone: generating code takes half a minute
    fast: Any = torch.compile(stage, dynamic=False, backend=backend)
    result["compiled"] = bench.median_seconds(lambda: fast(*arguments), 5)
    result["error"] = relative_error(fast(*arguments), reference)
    result["summary"] = (
        f"{result['eager']['median'] * 1e3:.2f} ms -> {result['compiled']['median'] * 1e3:.2f} ms, "
        f"compiling {result['compiled']['first']:.0f} s, error {result['error']['rel_l2']:.1e}"
    )


@torch.no_grad()
def prior_types(bench: Bench, result: dict[str, Any]) -> None:
    """The per-frame prior in float32, TF32 and bfloat16: seconds a frame and how far the points move."""
    view = window(frame_count(bench, 4), crafter_size(bench.smallest))
    reference = None
    cuda = bench.device.type == "cuda"
    for kind in ("float32", "tf32", "bfloat16", "float16") if cuda else ("float32", "bfloat16"):
        prior = moge_prior(bench.device, bench.smallest, dtype=kind.replace("tf32", "float32"))
        with tf32(kind == "tf32"):
            result[kind] = bench.median_seconds(lambda p=prior: p(view), 1)  # type: ignore[misc]
            points = prior(view).points
        reference = points if reference is None else reference
        result[kind] |= relative_error(points, reference)
        del prior
    result["summary"] = ", ".join(
        f"{k} {row['median'] / view.num_frames * 1e3:.0f} ms/frame {row['rel_l2']:.1e}"
        for k, row in result.items()
    )


STEPS = [
    Step("variants", "ceilings", 4, ceilings),
    Step("variants", "profile", 8, profile, keeps=("geo4d bfloat16",)),
    Step("variants", "prior in each type", 10, prior_types),
    Step("variants", "compiled block", 40, compiled_block),
]
