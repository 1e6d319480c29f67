"""Running the stages of the recipe (``recipes``): batches, tasks, closed-form fits, and whole chains."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from geo4d.datasets.sampling import draw_mixture
from geo4d.errors import CheckpointError, InputError, OutputError
from geo4d.models.geo4d.widths import MODALITIES
from geo4d.models.trained import read_trained, write_trained
from geo4d.training.data import Batch, ClipSource, ReplayPlan
from geo4d.training.loop import LoopConfig, Progress, train
from geo4d.training.plans import Preset, Stage, StageRun
from geo4d.training.recipes import find_preset, find_stage
from geo4d.training.saving import kept_on_failure
from geo4d.training.sources import SyntheticSource
from geo4d.training.stage_clips import packed_source, validation_clips
from geo4d.training.tasks.tiny.batches import StreamedBatches

logger = logging.getLogger(__name__)

CLOSED = ("codec", "calibration")
"""Kinds of stages without steps."""

MOST_ZOOM = 4.0
"""Beyond this a window is a blur: the pictures are enlarged, nobody has filmed them closer."""


def override(loop: LoopConfig, **values: Any) -> LoopConfig:
    """The loop with those of ``values`` that are not None.

    Raises:
        ValueError: a name that ``LoopConfig`` does not have.
    """
    known = {f.name for f in fields(LoopConfig)}
    if unknown := set(values) - known:
        raise ValueError(f"expected fields of LoopConfig out of {sorted(known)}, got {sorted(unknown)}")
    return replace(loop, **{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class MixedBatches:
    """One of several streams per step, drawn by weight; a ``BatchSource`` of the loop."""

    parts: tuple[StreamedBatches, ...]
    ratios: tuple[float, ...]
    seed: int

    def __call__(self, first_step: int, rank: int, processes: int) -> Iterator[Batch]:
        if len(self.parts) == 1:
            yield from self.parts[0](first_step, rank, processes)
            return
        served = [0] * len(self.parts)
        for step in range(first_step):
            served[draw_mixture(self.ratios, step, self.seed)] += 1
        streams = [part(start, rank, processes) for part, start in zip(self.parts, served, strict=True)]
        step = first_step
        while True:
            yield next(streams[draw_mixture(self.ratios, step, self.seed)])
            step += 1


def stage_batches(
    stage: Stage, seed: int, *, shards: str | Path | None = None, num_workers: int = 0, holes: bool = False
) -> MixedBatches:
    """The batches of a stage, from the generator or from packed clips, which are brought to the size of each stream.

    Args:
        holes: the stage knows unknown depth from sky.
    Raises:
        InputError: ``shards`` holds no clips.
    """
    parts = []
    for number, stream in enumerate(stage.streams):
        source: ClipSource = stream.source(seed + number)
        first = stage.first_clip
        if shards is not None:
            source, first = packed_source(stage, number, seed, shards, holes), 0
        plan = ReplayPlan(seed + number, stage.chunk, stage.uses, first)
        sampling = replace(stage.sampling, seed=seed)
        parts.append(StreamedBatches(source, plan, sampling, stage.loop.batch, num_workers))
    return MixedBatches(tuple(parts), tuple(stream.ratio for stream in stage.streams), seed)


def run_stage(
    family: str, preset_name: str, stage_name: str, run: StageRun, loop: LoopConfig | None = None
) -> Progress:
    """Run one stage of a preset.

    Args:
        loop: in place of the preset's (see ``override``).
    Raises:
        ValueError: unknown names.
        InputError: the weights to start from are missing.
        CheckpointError: they do not fit.
        TrainingError, OutputError: see ``loop.train``.
    """
    preset, stage = find_stage(family, preset_name, stage_name)
    if run.modalities is not None and preset.family != "geo4d":
        raise ValueError(
            f"expected modalities for the family geo4d alone, got {run.modalities} for {preset.family}"
        )
    if loop is not None:
        stage = replace(stage, loop=loop)
    if run.first_clip is not None:
        stage = replace(stage, first_clip=run.first_clip)
    if run.zoom is not None:
        if not 1 <= run.zoom <= MOST_ZOOM:
            raise ValueError(f"expected a zoom between 1 and {MOST_ZOOM}, got {run.zoom}")
        stage = replace(stage, sampling=replace(stage.sampling, zoom=run.zoom))
    torch.manual_seed(stage.loop.seed)
    if preset.family == "geo4d":
        from geo4d.training.tasks.geo4d.tasks import make_task

        task = make_task(preset, stage, stage_name, run)
    else:
        if stage.after is not None and run.start is None:
            raise InputError(
                f"stage '{stage_name}' starts from the weights of '{stage.after}'; name them with --start"
            )
        if stage.kind == "codec":
            return _fit_codec(preset, stage, run)
        if stage.kind == "calibration":
            return _fit_calibration(preset, stage, run)
        task = _tiny_task(preset, stage, stage_name, run)
    batches = stage_batches(
        stage, preset.seed, shards=run.shards, num_workers=run.workers, holes=preset.family == "geo4d"
    )
    return train(task, batches, stage.loop, run.folder, resume=run.resume, device=run.device)


def chain_of(preset: Preset, run: StageRun) -> tuple[str, ...]:
    """The stages that ``run_all`` runs: those of the preset's chain that train nothing beside ``run.modalities``.

    Raises:
        CheckpointError: a Geo4D folder to start from has no channels of what a stage trains; said before the first one.
    """
    if preset.family != "geo4d":
        return preset.chain
    from geo4d.training.tasks.geo4d.networks import present_modalities

    wanted = run.modalities
    if run.start is not None and run.start.is_dir():
        present = present_modalities(run.start)
        last = set(preset.stages[preset.chain[-1]].diffusion.modalities) if wanted is None else set(wanted)
        if not last <= set(present):
            fits = next(name for name, names in MODALITIES.items() if names == present)
            raise CheckpointError(
                f"{run.start}: expected a network with channels of {', '.join(sorted(last))}, this one has those of "
                f"{', '.join(present)}; train it with --modalities {fits}, or start from a wider one"
            )
    if wanted is None:
        return preset.chain
    stages = preset.stages
    left_out = [
        name
        for name in preset.chain
        if stages[name].kind == "diffusion" and not set(stages[name].diffusion.modalities) <= set(wanted)
    ]
    if left_out:
        logger.info("a network of %s leaves out: %s", ", ".join(wanted), ", ".join(left_out))
    return tuple(name for name in preset.chain if name not in left_out)


def run_all(
    family: str,
    preset_name: str,
    run: StageRun,
    *,
    steps: int | None = None,
    loop_changes: Mapping[str, Any] | None = None,
) -> Path:
    """All stages of a preset's chain, one after the other, each from the folder of the one before.

    With ``run.modalities`` the stages that train others are left out. Every stage has ``run.folder/<stage>``; the weights
    of the last one end in ``run.folder/weights`` too. A stopped chain goes on with ``resume``: finished stages are not
    run again.

    Args:
        run: ``start`` is that of the first stage.
        steps: of every stage, in place of the preset's.
        loop_changes: fields of ``LoopConfig`` for all stages.
    Returns:
        The folder of the weights.
    Raises:
        CheckpointError: a Geo4D folder to start from has no channels of what a stage trains.
        OutputError: the folder holds a run and ``resume`` is not set.
    """
    from geo4d.formats.files import copy_tree, new_folder

    preset, start = find_preset(family, preset_name), run.start
    for name in chain_of(preset, run):
        stage = preset.stages[name]
        if start is not None and stage.after is None and preset.fresh:
            # Fine-tuning: what the first stage makes is there already.
            logger.info("stage '%s' is left out: the chain starts from %s", name, start)
            continue
        folder = run.folder / name
        if stage.kind in CLOSED and (folder / "weights").exists():
            if not run.resume:
                raise OutputError(f"{folder} already holds a run; resume it or choose another folder")
        else:
            loop = override(stage.loop, num_steps=steps, **(loop_changes or {}))
            progress = run_stage(family, preset_name, name, replace(run, folder=folder, start=start), loop)
            logger.info("stage '%s' is done: %d steps in %.0f s", name, progress.step, progress.seconds)
        start = folder / "weights"
    assert start is not None
    with new_folder(run.folder / "weights", overwrite=True) as temporary:
        copy_tree(start, temporary)
    return run.folder / "weights"


def _weight_file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def _facts(stage_name: str, preset: Preset, before: Mapping[str, Any], run: StageRun) -> dict[str, Any]:
    """What the record of a tiny stage's folder says."""
    return {
        "family": "tiny",
        "stage": stage_name,
        "stages": [*before.get("stages", []), stage_name],
        "seed": preset.seed,
        "data": "generator" if run.shards is None else "packed clips",
    }


def _stages_before(start: Path | None) -> Mapping[str, Any]:
    folder = start if start is None or start.is_dir() else start.parent
    return {} if folder is None else read_trained(folder) or {}


def _write_tiny(run: StageRun, model: Any, record: dict[str, Any], facts: dict[str, Any]) -> None:
    """The folder of a stage in closed form, whole or not at all."""
    from geo4d.models.tiny.weights import save_model

    run.folder.mkdir(parents=True, exist_ok=True)
    with kept_on_failure(run.folder, "weights", 0):
        save_model(model, run.folder / "weights.partial" / "model.safetensors", record)
        write_trained(run.folder / "weights.partial", facts)


def _fit_codec(preset: Preset, stage: Stage, run: StageRun) -> Progress:
    from geo4d.models.tiny.encoder import imagenet_encoder
    from geo4d.models.tiny.model import TinyModel
    from geo4d.training.tasks.tiny.tasks import fit_codec

    stream = stage.streams[0]
    source: ClipSource = SyntheticSource(preset.seed, stream.size, stream.clip_frames, stream.fps)
    if run.shards is not None:
        source = packed_source(stage, 0, preset.seed, run.shards)
    model = TinyModel(preset.tiny)
    if preset.tiny.encoder == "lite0":
        model.depth.encoder.load_state_dict(imagenet_encoder().state_dict())
    fit_codec(model.codec, source, stage.chunk)
    record = {"stage": "codec", "clips": stage.chunk}
    _write_tiny(run, model, record, _facts("codec", preset, {}, run))
    return Progress()


def _fit_calibration(preset: Preset, stage: Stage, run: StageRun) -> Progress:
    from geo4d.models.tiny.weights import load_model, read_record
    from geo4d.training.calibrate import fit_calibration

    source: ClipSource = stage.streams[0].source(preset.seed)
    first = stage.first_clip
    if run.shards is not None:
        source, first = packed_source(stage, 0, preset.seed, run.shards), 0
    assert run.start is not None
    file = _weight_file(run.start)
    model = load_model(file)
    model.calibration = fit_calibration(model, source, range(first, first + stage.chunk))
    facts = _facts("calibration", preset, _stages_before(run.start), run)
    _write_tiny(run, model, read_record(file), facts)
    return Progress()


def _tiny_task(preset: Preset, stage: Stage, name: str, run: StageRun) -> Any:
    from geo4d.models.tiny.weights import load_model
    from geo4d.training.tasks.tiny.batches import validation_batches
    from geo4d.training.tasks.tiny.tasks import TinyDepth, TinyDiffusion

    assert run.start is not None
    model = load_model(_weight_file(run.start)).train()
    model.network.checkpointing = model.depth.checkpointing = stage.loop.checkpointing
    validation = []
    if run.num_validation:
        source, frames, count = validation_clips(preset, stage, run)
        validation = validation_batches(source, count, frames)
    task: TinyDepth | TinyDiffusion
    if stage.kind == "depth":
        task = TinyDepth(model, validation, seed=preset.seed)
    else:
        task = TinyDiffusion(model, replace(stage.diffusion, seed=preset.seed), validation)
    task.facts = _facts(name, preset, _stages_before(run.start), run)
    return task
