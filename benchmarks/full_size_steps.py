"""Real optimiser steps of the full-size Geo4D network at full width with fewer levels: does the loss of one batch fall?

    python benchmarks/full_size_steps.py [--levels 2] [--steps 20] [--output benchmarks/results/NAME.json]

The released network has four levels of widths 320, 640, 1280, 1280 with two residual blocks each; its step needs about
23 GB. Here: the first levels at their full width, one residual block each, with spatial and temporal attention, the
conditioning by text and picture tokens, float32 and AdamW.
"""

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import torch

from geo4d.models.geo4d.config import full
from geo4d.models.geo4d.unet import UNet


def run(levels: int, steps: int, learning_rate: float) -> dict[str, object]:
    released = full().unet
    config = replace(
        released,
        channel_mult=released.channel_mult[:levels],
        num_res_blocks=1,
        attention_resolutions=tuple(2**level for level in range(levels)),
    )
    torch.manual_seed(0)
    network = UNet(config)
    side = 2 ** (levels + 1)
    latent, target = torch.randn(1, 20, 2, side, side), torch.randn(1, 16, 2, side, side)
    context, timestep, fps = torch.randn(1, 77 + 16, 1024), torch.tensor([500.0]), torch.tensor([24.0])
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, fused=True)
    started, losses = time.process_time(), []
    for _ in range(steps):
        loss = torch.nn.functional.mse_loss(network(latent, timestep, context, fps), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(round(float(loss.detach()), 5))
    return {
        "widths": [released.model_channels * factor for factor in config.channel_mult],
        "parameters": sum(p.numel() for p in network.parameters()),
        "learning_rate": learning_rate,
        "losses": losses,
        "cpu_seconds": round(time.process_time() - started, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result = run(options.levels, options.steps, options.learning_rate)
    print(json.dumps(result, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
