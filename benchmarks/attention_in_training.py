"""Forward and backward of the reduced diffusion networks: attention by torch's fused kernel, and written out.

    python benchmarks/attention_in_training.py [--output benchmarks/results/NAME.json]

Both ways in turns, in one process, one thread, bfloat16; medians of CPU seconds after a warm-up, and their ratio.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from geo4d.models import layers
from geo4d.models.geo4d.unet import UNet
from geo4d.training.tasks.geo4d.presets import reduced_config
from geo4d.training.tasks.geometrycrafter.networks import fresh_unet, reduced_sizes


def geo4d() -> Callable[[], Tensor]:
    """A step of ``points``: eight pairs of frames."""
    config = reduced_config().unet
    network = layers.flatten_time_convs(UNet(config))
    x, context = torch.randn(8, 20, 2, 16, 32), torch.randn(8, 93, config.context_dim)
    return lambda: network(x, torch.full((8,), 500.0), context, torch.full((8,), 8.0))


def geometrycrafter() -> Callable[[], Tensor]:
    """A step of ``unet``: four windows of eight frames."""
    network = fresh_unet(reduced_sizes().unet_for("diff"))
    x, tokens = torch.randn(4, 8, 12, 16, 32), torch.randn(4, 8, 32)
    return lambda: network(x, torch.tensor(1.0), tokens, torch.zeros(4, 3))


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = run().float().square().mean()
    loss.backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    written_out = layers.LARGEST_TABLE
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "rows": {}}
    for name, make in (("geo4d", geo4d), ("geometrycrafter", geometrycrafter)):
        run = make()
        times: dict[str, list[float]] = {"fused": [], "written out": []}
        for turn in range(options.repeat + 1):
            for way, table in (("fused", 0), ("written out", written_out)):
                layers.LARGEST_TABLE = table
                taken = seconds(run)
                if turn:
                    times[way].append(taken)
        row = {way: round(statistics.median(values), 3) for way, values in times.items()}
        found["rows"][name] = {**row, "ratio": round(row["written out"] / row["fused"], 3)}
    print(json.dumps(found, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
