"""Speed, memory and rounding of the full-size Geo4D network on synthetic weights.

    python benchmarks/geo4d_network.py [--only NAME ...] [--json FILE] [--height 256] [--width 512]

Each variant runs in its own process, one after the other; ``plain`` variants are a straightforward float32 run of the
same network (full score matrices, channels-first layout) and the yardstick of the others. Times are CPU seconds
(user + system) of the timed call alone, after one call at a small size; memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE.parent),) if p not in sys.path]

from geo4d.models.geo4d.config import full  # noqa: E402
from geo4d.models.geo4d.unet import UNet  # noqa: E402
from geo4d.models.geo4d.vae import VAE  # noqa: E402
from geo4d.models.geo4d.weights import make_parts  # noqa: E402
from geo4d.models.layers import hold_weights, use_channels_last  # noqa: E402

FRAMES = 16
VARIANTS: dict[str, tuple[str, torch.dtype, bool]] = {
    "unet-plain": ("unet", torch.float32, True),
    "unet-float32": ("unet", torch.float32, False),
    "unet-bfloat16": ("unet", torch.bfloat16, False),
    "vae-plain": ("vae", torch.float32, True),
    "vae-float32": ("vae", torch.float32, False),
    "vae-bfloat16": ("vae", torch.bfloat16, False),
}
"""Name -> (part, type of the weights, straightforward run)."""

DECODED_FRAMES = {"vae-plain": 1, "vae-float32": 1}
"""Frames decoded where all sixteen would only repeat the same work; times are given per frame."""


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def current_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fill(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give a module without storage weights of a fixed seed, tensor by tensor, in its final type."""
    module.to_empty(device="cpu")
    hold_weights(module, dtype)
    for name, parameter in module.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            values /= parameter[0].numel() ** 0.5
        else:
            values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
        parameter.data.copy_(values)
    return module.eval().requires_grad_(False)


def build(part: str, dtype: torch.dtype) -> nn.Module:
    """A full-size part; cast before it gets storage, so that memory never holds it twice."""
    module = make_parts(full(), [part])[part]
    return fill(hold_weights(module, dtype), dtype)


def noise(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def unet_call(unet: UNet, height: int, width: int) -> Callable[[], Tensor]:
    config = unet.config
    x = noise("x", 1, config.in_channels, FRAMES, height // 8, width // 8)
    keys = unet.context_keys(noise("context", 1, 333, config.context_dim))
    return lambda: unet(x, torch.tensor([999]), keys, torch.tensor([24]))


def vae_call(vae: VAE, height: int, width: int, frames: int) -> Callable[[], Tensor]:
    z = noise("z", FRAMES, vae.config.latent_channels, height // 8, width // 8)[:frames]
    return lambda: torch.cat([vae.decode_with_uncertainty(part).float() for part in z.split(1)])


@torch.no_grad()
def run_variant(name: str, height: int, width: int, output: Path) -> dict[str, Any]:
    part, dtype, plain = VARIANTS[name]
    module: Any = build(part, dtype)
    if dtype != torch.float32:
        use_channels_last(module)
    frames = DECODED_FRAMES.get(name, FRAMES)

    def make(rows: int, columns: int, count: int) -> Callable[[], Tensor]:
        if part == "unet":
            return unet_call(module, rows, columns)
        return vae_call(module, rows, columns, count)

    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        make(64, 64, 1)()
        call = make(height, width, frames)
        weights_mb = sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20
        before_mb = current_mb()
        started = time.perf_counter(), time.process_time()
        out = call()
        wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    torch.save(out.float(), output)
    calls = 1 if part == "unet" else frames
    return {
        "variant": name,
        "cpu_seconds": round(cpu / calls, 2),
        "wall_seconds": round(wall / calls, 2),
        "per": "call" if part == "unet" else "frame",
        "threads": torch.get_num_threads(),
        "weights_mb": round(weights_mb),
        "peak_rss_mb": round(rss_mb()),
        "above_start_mb": round(rss_mb() - before_mb),
    }


def relative_l2(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def compare_to_plain(row: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> None:
    """Add rounding error and speed against the straightforward run of the same part."""
    name = row["variant"].split("-")[0] + "-plain"
    plain = next((r for r in rows if r["variant"] == name), None)
    if plain is None or plain is row:
        return
    reference = torch.load(folder / f"{name}.pt", weights_only=True)
    ours = torch.load(folder / f"{row['variant']}.pt", weights_only=True)
    row["relative_l2"] = relative_l2(ours[: len(reference)], reference)
    row["times_faster"] = round(plain["cpu_seconds"] / row["cpu_seconds"], 2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed and memory of the full-size network.")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each run")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="folder for outputs; a later run adds to it")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child is not None:
        name, output = options.child
        print(json.dumps(run_variant(name, options.height, options.width, Path(output))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            command = [sys.executable, __file__, "--child", name, str(folder / f"{name}.pt")]
            command += [
                "--height",
                str(options.height),
                "--width",
                str(options.width),
                "--threads",
                str(options.threads),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            (folder / f"{name}.json").write_text(done.stdout.splitlines()[-1])
        rows = [
            json.loads((folder / f"{n}.json").read_text())
            for n in VARIANTS
            if (folder / f"{n}.json").exists()
        ]
        for row in rows:
            compare_to_plain(row, rows, folder)
            print(json.dumps(row), flush=True)
    result = {
        "size": [options.height, options.width],
        "frames": FRAMES,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": rows,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
