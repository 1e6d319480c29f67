"""Light decoders beside their teachers at full size: arithmetic, CPU time and memory, weights as they are drawn.

    python benchmarks/light_decoders.py [--family geo4d] [--size 448 768] [--output benchmarks/results/NAME.json]

One frame, one thread, float32, each decoder in a process of its own; the light one decodes it twice, since its first call
would be mostly start.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def make(family: str, kind: str) -> tuple[Any, Any]:
    """A decoder and what calls it on latents."""
    from geo4d.models.light_decoder import LightDecoder

    if family == "geometrycrafter":
        from geo4d.models.geometrycrafter.vae import PointMapDecoder
        from geo4d.training.tasks.geometrycrafter.networks import Sizes

        sizes = Sizes()
        if kind == "light":
            return LightDecoder(sizes.light_decoder), lambda d, z: d(z, len(z))
        return PointMapDecoder(sizes.point_map_vae), lambda d, z: d(z, len(z))
    from geo4d.models.geo4d.vae import VAE
    from geo4d.training.recipes import find_preset

    preset = find_preset("geo4d", "full")
    if kind == "light":
        return LightDecoder(preset.light_decoder), lambda d, z: d(z)
    return VAE(preset.geo4d.vae), lambda d, z: d.decode_with_uncertainty(z)


def flops(family: str, kind: str, size: tuple[int, int]) -> int:
    from geo4d.models.light_decoder import count_flops

    _, call = make(family, kind)
    return count_flops(
        lambda: make(family, kind)[0], lambda d: call(d, torch.zeros(1, 4, size[0] // 8, size[1] // 8))
    )


class Peak(threading.Thread):
    """Largest resident memory while it watches, above that at its start, bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = False
        self.start_bytes = self.peak = self.resident()

    def resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def run(self) -> None:
        while not self.over:
            self.peak = max(self.peak, self.resident())
            time.sleep(0.002)

    def stop(self) -> int:
        self.over = True
        self.join()
        return self.peak - self.start_bytes


def child(family: str, kind: str, size: tuple[int, int]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder, call = make(family, kind)
    decoder.eval().requires_grad_(False)
    latent = torch.randn(1, 4, size[0] // 8, size[1] // 8)
    watch = Peak()
    watch.start()
    for _ in range(1 + (kind == "light")):
        started = time.process_time()
        with torch.no_grad():
            call(decoder, latent)
        took = time.process_time() - started
    found = {
        "cpu_seconds_per_frame": round(took, 2),
        "peak_above_loaded_gb": round(watch.stop() / 1e9, 3),
        "parameters": sum(p.numel() for p in decoder.parameters()),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=[448, 768])
    parser.add_argument("--family", choices=["geometrycrafter", "geo4d"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    if options.child:
        child(options.family, options.child, size)
        return
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "hardware": "one thread of a shared two-core machine",
        "size": list(size),
    }
    for family in [options.family] if options.family else ["geometrycrafter", "geo4d"]:
        rows: dict[str, Any] = {}
        for kind in ("light", "full"):
            command = [
                sys.executable,
                __file__,
                "--family",
                family,
                "--child",
                kind,
                "--size",
                *map(str, size),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows[kind] = {
                "tflops_per_frame": round(flops(family, kind, size) / 1e12, 4),
                **json.loads(done.stdout),
            }
        rows["share_of_flops"] = round(
            rows["light"]["tflops_per_frame"] / rows["full"]["tflops_per_frame"], 4
        )
        found[family] = rows
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
