"""The light decoder and the one-step student at reduced size, each against its teacher on held-out clips.

    geo4d train all --family geo4d --preset reduced -o RUN
    python benchmarks/light_and_one_step.py RUN --preset reduced [--family geo4d] [--output benchmarks/results/NAME.json]

With ``--preset reduced``: both stages from the end of a chain that was trained already. With ``smallest``: trains the
chain in RUN for more steps than the preset says (``STEPS``), then both. Started again, it goes on where it stopped.
Scores are those of held-out generated clips, as stages log them. One thread.
"""

import argparse
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STEPS: dict[tuple[str, str], dict[str, int]] = {
    ("geometrycrafter", "smallest"): {
        "pictures": 180, "maps": 420, "maps-video": 300, "unet": 300, "unet-long": 60, "light-decoder": 1000,
        "one-step": 400,
    },
    ("geo4d", "smallest"): {
        "pictures": 250, "decoder": 200, "points": 60, "multiresolution": 30, "rays": 60, "disparity": 200,
        "light-decoder": 500, "one-step": 200,
    },
    ("geometrycrafter", "reduced"): {"light-decoder": 800, "one-step": 150},
    ("geo4d", "reduced"): {"light-decoder": 800, "one-step": 150},
}  # fmt: skip
"""Family and preset -> stage -> optimiser steps, in order."""

HELD_OUT = 24
"""Clips that no stage trains on."""


def geometrycrafter(preset: str, stage: str, folder: Path, start: Path | None, steps: int) -> None:
    from geo4d.training.stages import override
    from geo4d.training.tasks.geometrycrafter.presets import find_stage
    from geo4d.training.tasks.geometrycrafter.stages import StageRun, run_stage

    loop = replace(override(find_stage(preset, stage)[1].loop, num_steps=steps), save_every=50)
    held_out = HELD_OUT if stage in ("light-decoder", "one-step") else 8
    run = StageRun(folder, start=start, num_validation=held_out, resume=True, device="cpu")
    run_stage(preset, stage, run, loop)


def geo4d(preset: str, stage: str, folder: Path, start: Path | None, steps: int) -> None:
    from geo4d.training.plans import StageRun
    from geo4d.training.recipes import find_stage
    from geo4d.training.stages import override, run_stage

    loop = replace(override(find_stage("geo4d", preset, stage)[1].loop, num_steps=steps), save_every=50)
    held_out = HELD_OUT if stage in ("light-decoder", "one-step") else 8
    run = StageRun(folder, start=start, workers=0, num_validation=held_out, resume=True, device="cpu")
    run_stage("geo4d", preset, stage, run, loop)


FAMILIES = {"geometrycrafter": geometrycrafter, "geo4d": geo4d}


def last_scores(folder: Path) -> dict[str, Any]:
    """Steps, CPU seconds and the scores of the last evaluation."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [row for row in rows if any(key.startswith("eval/") for key in row)][-1]
    scores = {key.removeprefix("eval/"): value for key, value in last.items() if key.startswith("eval/")}
    return {"steps": last["step"], "cpu_seconds": round(last["cpu_seconds"], 1), **scores}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--family", choices=list(FAMILIES), default="geometrycrafter")
    parser.add_argument("--preset", choices=["smallest", "reduced"], default="smallest")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("geo4d.training").setLevel(logging.INFO)
    torch.set_num_threads(1)
    start: Path | None = None if options.preset == "smallest" else options.run / "weights"
    stages = {}
    for stage, steps in STEPS[options.family, options.preset].items():
        folder = options.run / stage
        FAMILIES[options.family](options.preset, stage, folder, start, steps)
        stages[stage] = last_scores(folder)
        start = folder / "weights"
        found = {
            "date": time.strftime("%Y-%m-%d"),
            "command": f"python benchmarks/light_and_one_step.py RUN --family {options.family} --preset {options.preset}",
            "hardware": "one core of a shared two-core machine",
            "torch": torch.__version__,
            "held_out_clips": HELD_OUT,
            "stages": stages,
        }
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
