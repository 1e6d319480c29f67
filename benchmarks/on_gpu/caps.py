"""What fits under a memory cap: the presets on cards of 12 and 24 GiB, one window and four."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from benchmarks.on_gpu.crafter import frame_count
from benchmarks.on_gpu.crafter import run_stages as crafter_stages
from benchmarks.on_gpu.geo4d_window import windows_of
from benchmarks.on_gpu.networks import crafter_system, geo4d_predictor
from benchmarks.on_gpu.steps import Bench, Step, clean, gib

CONTEXT_GIB = 0.6
"""Of a real card's memory for the context and libraries, which the allocator's cap does not see."""


@contextmanager
def capped(bench: Bench, size_gib: float, result: dict[str, Any]) -> Iterator[None]:
    """No more memory for the allocator than a card of this size would leave it."""
    clean(bench.device)
    if bench.device.type != "cuda":
        yield
        return
    total = torch.cuda.get_device_properties(bench.device).total_memory
    held = torch.cuda.memory_allocated(bench.device)
    result["allowed_gib"] = round(size_gib - CONTEXT_GIB, 2)
    result["held_before_gib"] = gib(held)
    torch.cuda.set_per_process_memory_fraction((size_gib - CONTEXT_GIB) * 2**30 / total, bench.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def geo4d_under(size_gib: float, preset: str, count: int, bench: Bench, result: dict[str, Any]) -> None:
    """Windows with a preset of Geo4D in bfloat16; what the chunks shrank to."""
    predictor = bench.hold(
        f"capped {preset}", lambda: geo4d_predictor(bench.device, "bfloat16", bench.smallest, preset)
    )
    with capped(bench, size_gib, result):
        for name in ("first", "again"):
            with bench.measured(result, name):
                windows = windows_of(bench, min(count, 2) if bench.smallest else count)
                found = predictor.predict_batch(windows, seed=0)
    result["chunks"] = dict(predictor._chunks.sizes)
    result["predictions"] = len(found)
    again = result["again"]
    result["summary"] = (
        f"{again['seconds']:.2f} s, peak {again.get('peak_gib')} GiB, chunks {result['chunks']}"
    )


def crafter_under(
    size_gib: float, frames: int, settings: dict[str, Any], bench: Bench, result: dict[str, Any]
) -> None:
    """A window of GeometryCrafter with these settings."""
    name = f"capped crafter {sorted(settings)}"
    bench.hold(name, lambda: crafter_system(bench.device, bench.smallest, **settings))
    with capped(bench, size_gib, result):
        crafter_stages(frame_count(bench, frames), name, settings, bench, result)


SMALL_CARD = {"offload": True, "encode_chunk": 2, "decode_frames_at_once": 2}

STEPS = [
    Step("caps", "geo4d gpu-12gb, 12 GiB", 12, partial(geo4d_under, 12, "gpu-12gb", 1)),
    Step("caps", "geo4d default, 24 GiB, four windows", 12, partial(geo4d_under, 24, "default", 4)),
    Step(
        "caps", "geo4d default, 12 GiB", 8, partial(geo4d_under, 12, "default", 1), keeps=("capped default",)
    ),
    Step("caps", "geo4d low-memory, 8 GiB", 10, partial(geo4d_under, 8, "low-memory", 1)),
    Step("caps", "crafter offloaded, 12 GiB", 20, partial(crafter_under, 12, 25, SMALL_CARD)),
    Step("caps", "crafter as published, 24 GiB", 25, partial(crafter_under, 24, 25, {})),
]
