"""How much decoded maps depend on decode chunks and tiles, with the full-size decoder and made-up weights.

    python benchmarks/geometrycrafter_chunks.py [--tiles] [--frames 16] [--size 32 48] [--json FILE]

Everything is compared with decoding the whole clip at once. With trained weights the numbers will differ; what carries
over is which settings depend on the chunk and which do not. Differences of log depth are in units of its spread.
"""

from __future__ import annotations

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

SETTINGS = ((4, 0), (4, 2), (8, 0), (8, 3), (8, 6), (12, 9))
"""(chunk, overlap) in frames."""

TILES = ((64, 16), (64, 32))
"""(edge, overlap) in pixels, on the whole clip in chunks as published."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", nargs=2, type=int, default=[32, 48], metavar=("H", "W"))
    parser.add_argument("--tiles", action="store_true", help="compare tiles instead of chunks")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    import torch
    from geometrycrafter import make

    from geo4d.models.geometrycrafter.config import PointMapVAEConfig
    from geo4d.models.geometrycrafter.decode import iter_decode
    from geo4d.models.geometrycrafter.tiles import run_tiled
    from geo4d.models.geometrycrafter.vae import PointMapDecoder

    torch.set_grad_enabled(False)
    decoder = make(lambda: PointMapDecoder(PointMapVAEConfig()), "float32", "cpu").cast(torch.float32)
    generator = torch.Generator().manual_seed(0)
    height, width = arguments.size
    # Neighbouring frames resemble each other: a random walk of fixed spread.
    steps = torch.randn(arguments.frames, 4, height // 8, width // 8, generator=generator)
    latents = steps.clone()
    for t in range(1, arguments.frames):
        latents[t] = 0.95 * latents[t - 1] + (1 - 0.95**2) ** 0.5 * steps[t]

    def decode(part: torch.Tensor) -> torch.Tensor:
        return torch.cat(decoder(part, len(part)), dim=1)

    whole = decode(latents)
    spread = float(whole[:, 1].std())
    rows: list[dict[str, Any]] = []

    def report(name: str, maps: torch.Tensor) -> None:
        error = (maps - whole)[:, 1].abs()
        jump = (maps[1:, 1] - maps[:-1, 1]).abs().mean(dim=(1, 2)) if len(maps) > 1 else torch.zeros(1)
        rows.append(
            {
                "setting": name,
                "log_depth_mean": float(error.mean()) / spread,
                "log_depth_max": float(error.max()) / spread,
                "largest_jump_between_frames": float(jump.max()) / spread,
            }
        )
        print(
            f"| {name} | {rows[-1]['log_depth_mean']:.1e} | {rows[-1]['log_depth_max']:.1e} "
            f"| {rows[-1]['largest_jump_between_frames']:.3f} |",
            flush=True,
        )

    print("| setting | mean difference | largest | largest jump between frames |\n|---|---|---|---|")
    report("whole clip", whole)
    for chunk, overlap in () if arguments.tiles else SETTINGS:
        report(
            f"chunk {chunk}, overlap {overlap}", torch.cat(list(iter_decode(decode, latents, chunk, overlap)))
        )
    for edge, overlap in TILES if arguments.tiles else ():
        tiled = run_tiled(decode, latents, edge // 8, overlap // 8, Fraction(8))
        report(f"whole clip, tiles of {edge} px, overlap {overlap}", tiled)
    if arguments.json:
        result = {
            "frames": arguments.frames,
            "size": arguments.size,
            "unit": "spread of log depth",
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
