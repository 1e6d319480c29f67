"""``geo4d train STAGE --preset PRESET``: run one stage of a training recipe."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from geo4d.training.loop import LoopConfig
    from geo4d.training.memory import Parallel

logger = logging.getLogger("geo4d.training.plan")

EXAMPLES = (
    "geo4d train codec -o runs/codec",
    "geo4d train all --family geo4d --preset smallest -o runs/geo4d --shards shards",
    "geo4d train all -o runs/gc --family geometrycrafter --preset smallest --steps 100",
)


def describe() -> str:
    """What ``--help`` says first: the stages of every family and preset, in their order."""
    from geo4d.training import recipes
    from geo4d.training.tasks.geometrycrafter import presets as geometrycrafter

    lines = [
        "Train a model, stage by stage or whole.",
        "",
        "Stages, in their order ('all' runs them one after the other):",
    ]
    for family, presets in recipes.PRESETS.items():
        for name, make in presets.items():
            preset = make()
            others = [stage for stage in preset.stages if stage not in preset.chain]
            line = f"  --family {family} --preset {name}: {', '.join(preset.chain)}"
            lines.append(line + (f"; not in 'all': {', '.join(others)}" if others else ""))
    for name, made in geometrycrafter.PRESETS.items():
        preset_of = made()
        others = [stage for stage in preset_of.stages if stage not in preset_of.chain]
        line = f"  --family geometrycrafter --preset {name}: {', '.join(preset_of.chain)}"
        lines.append(f"{line}; not in 'all': {', '.join(others)}")
    return "\n".join(
        [
            *lines,
            "",
            "The bundled weights were made by tiny's stages. --family may be left out where one family has the stage.",
            "Several processes: torchrun --nproc-per-node N -m -- geo4d train ...",
        ]
    )


@dataclass(frozen=True)
class TrainOptions:
    """Train a model, stage by stage or whole."""

    stage: Annotated[str, tyro.conf.Positional]
    """Name of the stage, or 'all' for the whole chain, which ends in OUTPUT/weights."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder of the run: weights, saved state, log, TensorBoard events. Needed but for --plan."""
    preset: str = "full"
    """'smallest' runs every stage in seconds or minutes on a CPU, 'reduced' trains narrow networks for an hour or two,
    'full' is the recipe."""
    family: Literal["geo4d", "tiny", "geometrycrafter"] | None = None
    """Which system: Geo4D, the bundled small model, or GeometryCrafter."""
    start: Path | None = None
    """Weights to start from: the folder 'weights' of the stage before, a converted folder to fine-tune, or a file."""
    modalities: Literal["points", "points+rays", "all"] | None = None
    """Geo4d: what the diffusion network has channels of; the stage 'all' leaves out those that train more. Weights of a
    wider network are narrowed. Without it: as the weights to start from, or all."""
    shards: str | None = None
    """Packed clips ('geo4d data pack'), folder or URL; without them the generator makes clips as needed."""
    variant: Literal["diff", "determ"] = "diff"
    """Geometrycrafter: the generative or the deterministic network."""
    prior: str | None = None
    """Geometrycrafter: the per-frame prior of the unet stages, 'tiny' (the bundled model) or a MoGe checkpoint; without
    it, truth with stated faults."""
    prior_cache: Path | None = None
    """Geometrycrafter: folder that keeps the prior of packed clips; 'priors' beside local shards when not given."""
    decoder_start: Literal["fresh", "image-decoder"] = "fresh"
    """Geometrycrafter, maps: where the point-map decoder begins."""
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
    evaluate_every: int | None = None
    """Steps between scores and pictures of the validation windows; 0 for the end alone."""
    export_every: int | None = None
    """Steps between exported weights in OUTPUT/weights, beside those of every evaluation."""
    parallel: Literal["ddp", "fsdp", "zero2", "zero3"] | None = None
    """Over several processes (torchrun): 'ddp' has everything in each, 'fsdp' shares weights, gradients and optimiser; so
    does 'zero3' of DeepSpeed (extra deepspeed), and 'zero2' shares gradients and optimiser alone."""
    eight_bit: bool = False
    """Keep the optimiser's state in 8 bits: a quarter of its memory. Needs the extra train-8bit."""
    threads: int | None = None
    """Threads of each process."""
    zoom: float | None = None
    """Geo4d and tiny: enlarge pictures by up to this factor, changing over the window as a zoom lens does; 1 for none."""
    workers: int = 1
    """Processes that make clips."""
    first_clip: int | None = None
    """Number of the first clip: one beyond those already shown, when training goes on from finished weights."""
    validation: int = 64
    """Windows that check the run while it trains, generated if not packed; 0 for none. Geo4d and geometrycrafter: at most
    8, the latter at full of packed clips only."""
    validation_shards: str | None = None
    """Packed clips ('geo4d data pack') that check the run; take care that --shards does not hold them, too."""
    device: Literal["cpu"] | None = None
    """'cpu' keeps an accelerator out."""
    plan: bool = False
    """Print what the stage needs in memory, on one card and on several, and stop. Geo4d and geometrycrafter."""
    plan_processes: int = 8
    """Cards that --plan shares the work over."""


def run(options: TrainOptions) -> int:
    """Run the stage, or all of them; the weights end in ``output/weights``."""
    # The command line has set warnings alone; a run of hours is watched.
    logging.getLogger("geo4d.training").setLevel(logging.INFO)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    family = options.family or _family_of(options.stage, options.preset)
    if options.modalities is not None and family != "geo4d":
        raise ValueError(f"expected --modalities with --family geo4d alone, got it with {family}")
    if options.plan:
        return _print_plan(family, options)
    if options.output is None:
        raise ValueError("expected a folder for the run: -o FOLDER")
    _log_plan(family, options)
    if family == "geometrycrafter":
        return _run_geometrycrafter(options)
    from geo4d.training.plans import StageRun
    from geo4d.training.recipes import find_stage
    from geo4d.training.stages import run_all, run_stage

    run = StageRun(
        options.output,
        start=options.start,
        shards=options.shards,
        workers=options.workers,
        num_validation=options.validation if family == "tiny" else min(options.validation, 8),
        validation_shards=options.validation_shards,
        first_clip=options.first_clip,
        modalities=_modalities(options),
        zoom=options.zoom,
        resume=options.resume,
        device=options.device,
    )
    if options.stage == "all":
        if options.first_clip is not None:
            raise ValueError("expected no --first-clip with 'all': every stage has clips of its own")
        weights = run_all(family, options.preset, run, steps=options.steps, loop_changes=_changes(options))
        print(
            f"weights are in {weights}: geo4d reconstruct VIDEO -o OUT --model {family} --weights {weights}"
        )
        return 0
    _, stage = find_stage(family, options.preset, options.stage)
    run_stage(family, options.preset, options.stage, run, _changed(stage.loop, options))
    return 0


def _modalities(options: TrainOptions) -> tuple[str, ...] | None:
    from geo4d.models.geo4d.widths import MODALITIES

    return None if options.modalities is None else MODALITIES[options.modalities]


def _print_plan(family: str, options: TrainOptions) -> int:
    """The memory plan of a stage, or of every stage of the chain."""
    if family == "tiny":
        raise ValueError("expected --plan for geo4d or geometrycrafter; the tiny model fits anywhere")
    if options.plan_processes < 1:
        raise ValueError(f"expected --plan-processes of at least 1, got {options.plan_processes}")
    for lines in iter_plans(family, options):
        print("\n".join([*lines, ""]))
    return 0


def _log_plan(family: str, options: TrainOptions) -> None:
    """What a full-size run is about to need, for the processes that it has."""
    sized = family != "tiny" and options.preset == "full"
    if not sized or options.start is None or not options.start.exists() or os.environ.get("RANK", "0") != "0":
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    chosen: "Parallel" = (options.parallel or "ddp") if processes > 1 else "one"
    for lines in iter_plans(family, replace(options, plan_processes=processes), chosen):
        logger.info("%s", "\n".join(lines))


def iter_plans(family: str, options: TrainOptions, way: "Parallel | None" = None) -> Iterator[list[str]]:
    """The plan of each stage that the options name, as lines for people.

    Args:
        way: of a run that is about to start, which is marked.
    """
    if family == "geometrycrafter":
        from geo4d.training.tasks.geometrycrafter import planning as crafter
        from geo4d.training.tasks.geometrycrafter import presets

        names = presets.find_chain(options.preset) if options.stage == "all" else [options.stage]
        for name in names:
            made, one = presets.find_stage(options.preset, name)
            loop = _changed(one.loop, options)
            found = crafter.plan(
                made, replace(one, loop=loop), name, variant=options.variant,
                micro_batch=_micro_batch(loop, options), processes=options.plan_processes,
            )  # fmt: skip
            yield found.lines(way)
        return
    from geo4d.models.geo4d.widths import with_modalities
    from geo4d.training import recipes
    from geo4d.training.plans import StageRun
    from geo4d.training.stages import chain_of
    from geo4d.training.tasks.geo4d import planning

    preset, modalities = recipes.find_preset(family, options.preset), _modalities(options)
    if modalities is not None:
        preset = replace(preset, geo4d=with_modalities(preset.geo4d, modalities))
    chosen = StageRun(Path(), modalities=modalities)
    for name in chain_of(preset, chosen) if options.stage == "all" else [options.stage]:
        _, stage = recipes.find_stage(family, options.preset, name)
        loop = _changed(stage.loop, options)
        micro_batch = _micro_batch(loop, options)
        yield planning.plan(
            preset, replace(stage, loop=loop), name, micro_batch=micro_batch, processes=options.plan_processes
        ).lines(way)


def _micro_batch(loop: "LoopConfig", options: TrainOptions) -> int:
    """Windows that one process works on together."""
    return max(1, loop.batch // (options.plan_processes * loop.accumulate))


def _family_of(stage: str, preset: str) -> str:
    """The family of a stage that only one has.

    Raises:
        ValueError: 'all', or a name that several or none have.
    """
    from geo4d.training.recipes import find_family
    from geo4d.training.tasks.geometrycrafter.presets import PRESETS

    if preset in PRESETS and stage in PRESETS[preset]().stages:
        raise ValueError(
            f"expected --family geometrycrafter, or another that has it, for the stage '{stage}'"
        )
    return find_family(stage, preset)


def _changes(options: TrainOptions) -> dict[str, Any]:
    """Fields of the loop that are given on the command line."""
    return {
        "max_minutes": options.minutes,
        "batch": options.batch,
        "accumulate": options.accumulate,
        "learning_rate": options.learning_rate,
        "decay": options.decay,
        "precision": options.precision,
        "checkpointing": options.checkpointing or None,
        "evaluate_every": options.evaluate_every,
        "export_every": options.export_every,
        "parallel": options.parallel,
        "eight_bit": options.eight_bit or None,
        "threads": options.threads,
    }


def _changed(loop: "LoopConfig", options: TrainOptions) -> "LoopConfig":
    from geo4d.training.stages import override

    return override(loop, num_steps=options.steps, **_changes(options))


def _run_geometrycrafter(options: TrainOptions) -> int:
    from geo4d.training.tasks.geometrycrafter.presets import find_stage
    from geo4d.training.tasks.geometrycrafter.priors import find_prior
    from geo4d.training.tasks.geometrycrafter.stages import StageRun, run_all, run_stage

    if options.zoom is not None:
        raise ValueError(
            "expected no --zoom: geometrycrafter's stages zoom already, by a factor of each window"
        )
    if options.first_clip is not None:
        raise ValueError(
            "expected no --first-clip: the clips of geometrycrafter's stages are those of the preset"
        )
    assert options.output is not None
    run = StageRun(
        options.output,
        start=options.start,
        shards=options.shards,
        variant=options.variant,
        prior=None if options.prior is None else find_prior(options.prior, options.device),
        prior_cache=options.prior_cache,
        decoder_start=options.decoder_start,
        workers=options.workers if options.shards is not None else 0,
        num_validation=0
        if options.preset == "full" and not options.validation_shards
        else min(options.validation, 8),
        validation_shards=options.validation_shards,
        resume=options.resume,
        device=options.device,
    )
    if options.stage == "all":
        weights = run_all(options.preset, run, steps=options.steps, loop_changes=_changes(options))
        model = "geometrycrafter" if options.variant == "diff" else "geometrycrafter-determ"
        print(f"weights are in {weights}: geo4d reconstruct VIDEO -o OUT --model {model} --weights {weights}")
        return 0
    _, stage = find_stage(options.preset, options.stage)
    run_stage(options.preset, options.stage, run, _changed(stage.loop, options))
    return 0
