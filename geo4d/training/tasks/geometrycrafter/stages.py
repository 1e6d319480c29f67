"""How the stages of GeometryCrafter's training are run, alone and one after the other."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from geo4d.datasets.clips import Clip
from geo4d.errors import InputError
from geo4d.models.geometrycrafter.config import Variant
from geo4d.models.geometrycrafter.vae import ImageVAE
from geo4d.models.geometrycrafter.weights import LIGHT_DECODER
from geo4d.models.light_decoder import MOST_FLOPS
from geo4d.models.trained import read_trained
from geo4d.training.data import ReplayPlan
from geo4d.training.loop import LoopConfig, Progress, Task, train
from geo4d.training.shards import ShardSource
from geo4d.training.sources import VALIDATION_OFFSET, SyntheticSource
from geo4d.training.tasks.geometrycrafter.clips import (
    ClipOrder,
    GeneratedOrder,
    PackedOrder,
    clips_identity,
    has_kind,
    render_clip,
)
from geo4d.training.tasks.geometrycrafter.denoising import Denoising, NoiseConfig
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.light import LatentNoise, LightDecoding, share_of_flops
from geo4d.training.tasks.geometrycrafter.networks import (
    FrozenNetworks,
    Sizes,
    fresh_light_decoder,
    fresh_point_map_vae,
    fresh_unet,
    load_image_encoder,
    load_image_vae,
    load_light_decoder,
    load_point_map_vae,
    load_unet,
)
from geo4d.training.tasks.geometrycrafter.one_step import OneStep
from geo4d.training.tasks.geometrycrafter.pictures import PictureCoding
from geo4d.training.tasks.geometrycrafter.point_maps import PointMapCoding
from geo4d.training.tasks.geometrycrafter.presets import PRESETS, WITH_PRIOR, Preset, Stage, find_stage
from geo4d.training.tasks.geometrycrafter.priors import PriorOfClip, StandInPrior, StoredPriors
from geo4d.training.tasks.geometrycrafter.windows import WindowBatches, Windows, cut_window

logger = logging.getLogger(__name__)

DecoderStart = Literal["fresh", "image-decoder"]


@dataclass(frozen=True)
class StageRun:
    """What one run of a stage is told, beside its preset.

    Attributes:
        folder: of the run; the weights end in ``folder/weights``.
        start: folder of weights to start from.
        shards: packed clips (folder or URL) in place of the generator.
        variant: of the UNet.
        prior: of the UNet's stages; None: the stand-in, with a warning where real weights are expected.
        prior_cache: folder of kept priors of packed clips; None: ``priors`` beside local shards.
        decoder_start: where a fresh point-map decoder begins.
        workers: processes that read packed clips.
        num_validation: windows that check the run.
        validation_shards: packed clips that they come from, in place of generated ones.
        resume: go on from the saved state.
        device: see ``train``.
    """

    folder: Path
    start: Path | None = None
    shards: str | None = None
    variant: Variant = "diff"
    prior: PriorOfClip | None = None
    prior_cache: Path | None = None
    decoder_start: DecoderStart = "fresh"
    workers: int = 0
    num_validation: int = 8
    validation_shards: str | None = None
    resume: bool = False
    device: str | None = None


def run_stage(preset_name: str, stage_name: str, run: StageRun, loop: LoopConfig | None = None) -> Progress:
    """Run one stage of a preset.

    Args:
        loop: in place of the preset's.
    Raises:
        ValueError: unknown names.
        InputError: there is nothing to start from, or the packed clips do not suit the stage.
        CheckpointError: what it starts from does not fit.
        TrainingError, OutputError: see ``loop.train``.
    """
    preset, stage = find_stage(preset_name, stage_name)
    if loop is not None:
        stage = replace(stage, loop=loop)
    if run.start is None and not (preset.fresh and stage.after is None):
        wanted = (
            f"the weights of '{stage.after}'"
            if stage.after
            else "Stable Video Diffusion's folder (svd/vae with decoder)"
        )
        raise InputError(
            f"stage '{stage_name}' of geometrycrafter starts from {wanted}; name the folder with --start"
        )
    torch.manual_seed(stage.loop.seed)
    if stage.kind == "one-step" and run.variant == "determ":
        raise InputError(
            f"stage '{stage_name}' is for --variant diff; the deterministic network takes one step already"
        )
    prior = run.prior or StandInPrior(seed=preset.seed) if stage.kind in WITH_PRIOR else None
    if isinstance(prior, StandInPrior) and not preset.fresh:
        logger.warning("no prior model is given: the network learns to mend %s", prior.name)
    task = _make_task(preset, stage, stage_name, run, prior)
    batches = WindowBatches(_clip_order(preset, stage, run, prior), stage.cut, stage.loop.batch)
    count = sum(value.numel() for value in task.trained().values())
    logger.info(
        "stage '%s': %s; %d parameters are trained, %.2f GB with gradients, optimiser and average",
        stage_name, stage.note, count, count * 20 / 1e9,
    )  # fmt: skip
    return train(task, batches, stage.loop, run.folder, resume=run.resume, device=run.device)


def generated_source(preset: Preset, stage: Stage, offset: int = 0) -> SyntheticSource:
    """The generator of a stage's clips, at the size of its windows."""
    # Sky everywhere is no window to learn depth from, so rooms come more often, as for the bundled model.
    return SyntheticSource(
        preset.seed + offset, stage.cut.size, preset.clip_frames, indoor=2.0, open_rooms=0.25, evidence=None
    )


def _clip_order(preset: Preset, stage: Stage, run: StageRun, prior: PriorOfClip | None) -> ClipOrder:
    if run.shards is None:
        plan = ReplayPlan(preset.seed, 16, 4, stage.first_clip)
        return GeneratedOrder(generated_source(preset, stage), plan, prior)
    if not has_kind(run.shards, stage.clips):
        raise InputError(
            f"expected videos among the packed clips of {run.shards}; sets of pictures feed 'maps' only"
        )
    if prior is not None:
        folder = run.prior_cache
        if folder is None and "://" in run.shards:
            raise InputError(f"expected --prior-cache FOLDER for priors of the packed clips in {run.shards}")
        prior = StoredPriors(folder or Path(run.shards) / "priors", prior, clips_identity(run.shards))  # type: ignore[arg-type]
    return PackedOrder(run.shards, stage.clips, preset.seed, run.workers, prior)


def validation_windows(
    preset: Preset, stage: Stage, count: int, prior: PriorOfClip | None, shards: str | None = None
) -> list[Windows]:
    """Beginnings of clips that no stage trains on, one window of whole pictures each.

    Args:
        stage: its longest window is the length, but no more than a clip has.
        count: number of windows, or all packed clips if they are fewer.
        prior: asked for the whole clip; None for stages without.
        shards: packed clips, taken evenly spread, in place of generated ones.
    Raises:
        InputError: no packed clips there, or only pictures for a stage of videos.
    """
    windows = []
    for number, clip in enumerate(_validation_clips(preset, stage, count, shards)):
        frames = torch.arange(min(stage.cut.frames[1], clip.num_frames)).numpy()
        found = None if prior is None else prior(clip)
        windows.append(cut_window(clip, found, frames, stage.cut.size, 1.0, number))
    return windows


def _validation_clips(preset: Preset, stage: Stage, count: int, shards: str | None) -> Iterator[Clip]:
    if shards is None or not count:
        source = generated_source(preset, stage, VALIDATION_OFFSET)
        yield from (render_clip(source, number) for number in range(count))
        return
    packed = ShardSource(shards, preset.seed, least=min(2, stage.cut.frames[1]))
    count = min(count, len(packed))
    yield from (packed.clip(number * len(packed) // count) for number in range(count))


def _make_task(preset: Preset, stage: Stage, name: str, run: StageRun, prior: PriorOfClip | None) -> Task:
    validation = validation_windows(preset, stage, run.num_validation, prior, run.validation_shards)
    # A decoder that changes is not the one a light decoder was distilled from.
    stale = (LIGHT_DECODER,) if stage.kind in ("pictures", "maps") else ()
    plan = FolderPlan(run.start, _facts(preset, stage, name, run, prior), stale)
    sizes = preset.sizes
    if stage.kind == "pictures":
        from geo4d.models.geometrycrafter.embedding import build_image_encoder

        if run.start is not None:
            vae = load_image_vae(run.start).requires_grad_(True)
            return PictureCoding(vae, None, plan, validation, seed=preset.seed, seen=stage.seen)
        encoder = build_image_encoder(sizes.image_encoder)
        vae = ImageVAE(sizes.image_vae, with_decoder=True)
        beside = (encoder, sizes.image_encoder)
        return PictureCoding(vae, beside, plan, validation, seed=preset.seed, seen=stage.seen)
    assert run.start is not None
    image_vae = load_image_vae(run.start)
    if stage.kind == "maps":
        if (run.start / "point_map_vae").is_dir():
            point_maps = load_point_map_vae(run.start)
        else:
            decoder = image_vae.decoder.state_dict() if image_vae.decoder is not None else None
            point_maps = fresh_point_map_vae(
                sizes.point_map_vae, decoder if run.decoder_start == "image-decoder" else None
            )
        return PointMapCoding(
            point_maps, FrozenNetworks(image_vae), stage.weights, plan, seen=stage.seen,
            temporal_only=stage.temporal_only, checkpointing=stage.loop.checkpointing, validation=validation,
        )  # fmt: skip
    if stage.kind == "light":
        return _light_task(stage, run.start, image_vae, sizes, plan, validation)
    frozen = FrozenNetworks(image_vae, load_image_encoder(run.start), load_point_map_vae(run.start))
    there = any((run.start / folder).is_dir() for folder in (f"unet_{run.variant}", "unet"))
    if preset.fresh and not there:
        unet, unet_config = fresh_unet(sizes.unet_for(run.variant)), sizes.unet_for(run.variant)
    else:
        unet, unet_config = load_unet(run.start, run.variant)
    if stage.kind == "one-step":
        teacher, _ = load_unet(run.start, run.variant)
        return OneStep(
            unet, unet_config, teacher, frozen, plan, noise=NoiseConfig(seed=preset.seed),
            checkpointing=stage.loop.checkpointing, validation=validation,
        )  # fmt: skip
    return Denoising(
        unet, unet_config, frozen, run.variant, plan, noise=replace(stage.noise, seed=preset.seed),
        temporal_only=stage.temporal_only, checkpointing=stage.loop.checkpointing, validation=validation,
    )  # fmt: skip


def _light_task(
    stage: Stage, start: Path, image_vae: ImageVAE, sizes: Sizes, plan: FolderPlan, validation: list[Windows]
) -> LightDecoding:
    """The light decoder of a folder, to train on, or a fresh one; its teacher is that folder's point-map decoder."""
    teacher = load_point_map_vae(start)
    light = load_light_decoder(start) or fresh_light_decoder(sizes.light_decoder)
    share = share_of_flops(light.config, teacher.config)
    logger.info("the light decoder's arithmetic is %.1f %% of its teacher's at 448x768", 100 * share)
    if share > MOST_FLOPS:
        logger.warning(
            "a light decoder is meant to need at most %.0f %% of its teacher's arithmetic", 100 * MOST_FLOPS
        )
    return LightDecoding(
        light, teacher, FrozenNetworks(image_vae), plan, weights=stage.light_weights,
        noise=LatentNoise(seed=stage.loop.seed), validation=validation,
    )  # fmt: skip


def _facts(
    preset: Preset, stage: Stage, name: str, run: StageRun, prior: PriorOfClip | None
) -> dict[str, Any]:
    """What the record of a stage's folder says."""
    before = read_trained(run.start) if run.start is not None else None
    longest, size = stage.cut.frames[1], stage.cut.size
    options: dict[str, Any] = {}
    if stage.kind in ("light", "one-step"):
        # What the folder before says of inference stays true.
        options = dict((before or {}).get("options", {}))
    if stage.kind == "one-step":
        options["num_steps"] = 1
    elif preset.fresh and stage.kind == "unet":
        options = {"window_length": longest, "overlap": min(25, longest // 4), "max_side": max(size)}
    return {
        "stage": name,
        "stages": [*(before or {}).get("stages", []), name],
        "seed": preset.seed,
        # Defaults of inference. The released sizes are met by any window and size that its config knows.
        "options": options,
        "trained_with_prior": getattr(prior, "name", None) or (before or {}).get("trained_with_prior"),
        # At inference the stand-in, which is made from the truth, does not exist: the bundled model takes its place.
        "prior": (before or {}).get("prior") or ("tiny" if preset.fresh else "moge"),
        "loop": asdict(stage.loop),
        "data": "packed clips" if run.shards is not None else "generator",
    }


def run_all(
    preset_name: str,
    run: StageRun,
    *,
    steps: int | Mapping[str, int] | None = None,
    loop_changes: Mapping[str, Any] | None = None,
) -> Path:
    """All stages of a preset's chain, one after the other, each from the folder of the one before.

    Every stage has ``run.folder/<stage>``; the weights of the last one end in ``run.folder/weights`` too. A stopped chain
    goes on with ``resume``: finished stages are not run again.

    Args:
        run: ``start`` is that of the first stage.
        steps: of every stage, or by stage, in place of the preset's.
        loop_changes: fields of ``LoopConfig`` for all stages.
    Returns:
        The folder of the weights.
    Raises:
        OutputError: the folder holds a run and ``resume`` is not set.
    """
    from geo4d.formats.files import copy_tree, new_folder
    from geo4d.training.stages import override

    start = run.start
    preset = PRESETS[preset_name]()
    for name in preset.chain:
        stage = preset.stages[name]
        if start is not None and stage.after is None and preset.fresh:
            # Fine-tuning: what the first stage makes is there already.
            logger.info("stage '%s' is left out: the chain starts from %s", name, start)
            continue
        own = steps.get(name) if isinstance(steps, Mapping) else steps
        loop = override(stage.loop, num_steps=own, **(loop_changes or {}))
        part = replace(run, folder=run.folder / name, start=start)
        progress = run_stage(preset_name, name, part, loop)
        logger.info("stage '%s' is done: %d steps in %.0f s", name, progress.step, progress.seconds)
        start = part.folder / "weights"
    assert start is not None
    with new_folder(run.folder / "weights", overwrite=True) as temporary:
        copy_tree(start, temporary)
    return run.folder / "weights"
