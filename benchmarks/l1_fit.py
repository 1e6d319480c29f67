"""Exact L1 scale and shift against the 5,000 Adam steps of Geo4D's released evaluation.

    python benchmarks/l1_fit.py [--samples 10000000] [--adam-steps 5000] [--timed-steps 50] [--output FILE]

Adam runs as the released script does (one scale, one shift, step size 0.01, start at the ratio of medians, sum of
absolute errors) on float32. All its steps on all samples would take many minutes, so the time of a few steps is
extrapolated, while its objective comes from running all steps on a subset, on which both objectives are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from geo4d.evaluation.l1 import fit_scale_shift_l1


def make_depth(num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction with multiplicative noise and 10 % outliers, and its reference depth, metres."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(num_samples, generator=generator) ** 2 * 60 + 1
    noise = 1 + 0.2 * torch.randn(num_samples, generator=generator)
    outlier = 20 * (torch.rand(num_samples, generator=generator) < 0.1)
    return (reference * noise + outlier) / 3, reference


def objective(predicted: torch.Tensor, reference: torch.Tensor, scale: float, shift: float) -> float:
    return float((scale * predicted.double() + shift - reference.double()).abs().sum())


def adam(
    predicted: torch.Tensor, reference: torch.Tensor, num_steps: int, rate: float = 1e-2
) -> tuple[float, float]:
    """The optimisation of the released evaluation script."""
    scale = (reference.median() / predicted.median()).clone().requires_grad_(True)
    shift = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([scale, shift], lr=rate)
    for _ in range(num_steps):
        optimiser.zero_grad()
        (scale * predicted + shift - reference).abs().sum().backward()
        optimiser.step()
    return float(scale.detach()), float(shift.detach())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--adam-steps", type=int, default=5000)
    parser.add_argument("--timed-steps", type=int, default=20)
    parser.add_argument("--subset", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    predicted, reference = make_depth(options.samples)

    fit_scale_shift_l1(predicted[:1000], reference[:1000])
    wall, cpu = time.perf_counter(), time.process_time()
    scale, shift = (float(value) for value in fit_scale_shift_l1(predicted, reference))
    exact_wall, exact_cpu = time.perf_counter() - wall, time.process_time() - cpu

    adam(predicted, reference, 2)
    wall, cpu = time.perf_counter(), time.process_time()
    adam(predicted, reference, options.timed_steps)
    per_step_wall = (time.perf_counter() - wall) / options.timed_steps
    per_step_cpu = (time.process_time() - cpu) / options.timed_steps

    small_p, small_r = predicted[: options.subset], reference[: options.subset]
    by_adam = objective(small_p, small_r, *adam(small_p, small_r, options.adam_steps))
    by_exact = objective(small_p, small_r, *(float(v) for v in fit_scale_shift_l1(small_p, small_r)))

    result = {
        "date": time.strftime("%Y-%m-%d"),
        "samples": options.samples,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "exact": {
            "wall_s": exact_wall,
            "cpu_s": exact_cpu,
            "scale": scale,
            "shift": shift,
            "objective": objective(predicted, reference, scale, shift),
        },
        "adam": {
            "steps": options.adam_steps,
            "timed_steps": options.timed_steps,
            "wall_s_extrapolated": per_step_wall * options.adam_steps,
            "cpu_s_extrapolated": per_step_cpu * options.adam_steps,
        },
        "speedup_wall": per_step_wall * options.adam_steps / exact_wall,
        "speedup_cpu": per_step_cpu * options.adam_steps / exact_cpu,
        "objective_on_subset": {"samples": options.subset, "exact": by_exact, "adam": by_adam},
    }
    print(json.dumps(result, indent=1))
    if by_exact > by_adam * (1 + 1e-9):
        raise SystemExit("the exact fit has a larger objective than Adam")
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
