"""``geo4d train STAGE --preset PRESET``: run one stage of a training recipe."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class TrainOptions:
    """Train one stage of a model.

    The stages of the bundled size are codec, pairs, clips, windows, decoder, calibration (the way the bundled weights
    were made), and points, multiresolution, rays, disparity (Geo4D's own order). Several processes: start this command
    with 'torchrun --nproc-per-node N -m geo4d train ...'.
    """

    stage: Annotated[str, tyro.conf.Positional]
    """Name of the stage."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the run: weights, saved state, log, TensorBoard events."""
    preset: Literal["tiny", "smallest", "full"] = "tiny"
    """Model size and recipe."""
    start: Path | None = None
    """Weights to start from: the folder 'weights' of the stage before, or a file."""
    shards: Path | None = None
    """Packed clips ('geo4d data pack'); without them the generator makes clips as needed."""
    resume: bool = False
    """Go on from the saved state in the output folder."""
    steps: int | None = None
    """Optimiser steps, in place of the preset's."""
    minutes: float | None = None
    """Stop and save after this many minutes."""
    batch: int | None = None
    """Windows per step, over all processes."""
    accumulate: int | None = None
    """Micro-batches per step and process."""
    learning_rate: float | None = None
    """In place of the preset's."""
    decay: float | None = None
    """Share of the steps at the end over which the rate falls."""
    precision: Literal["no", "bf16"] | None = None
    """Number format of the network's arithmetic."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    threads: int | None = None
    """Threads of each process."""
    workers: int = 1
    """Processes that make clips."""
    first_clip: int | None = None
    """Number of the first clip: one beyond those already shown, when training goes on from finished weights."""
    validation: int = 64
    """Windows that check the run while it trains; 0 for none."""
    device: Literal["cpu"] | None = None
    """'cpu' keeps an accelerator out."""


def run(options: TrainOptions) -> int:
    """Run the stage; the weights end in ``output/weights``."""
    from geo4d.training.stages import find_stage, override, run_stage

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    _, stage = find_stage(options.preset, options.stage)
    loop = override(
        stage.loop,
        num_steps=options.steps,
        max_minutes=options.minutes,
        batch=options.batch,
        accumulate=options.accumulate,
        learning_rate=options.learning_rate,
        decay=options.decay,
        precision=options.precision,
        checkpointing=options.checkpointing or None,
        threads=options.threads,
    )
    run_stage(
        options.preset,
        options.stage,
        options.output,
        start=options.start,
        shards=options.shards,
        loop=loop,
        num_workers=options.workers,
        num_validation=options.validation,
        first_clip=options.first_clip,
        resume=options.resume,
        device=options.device,
    )
    return 0
