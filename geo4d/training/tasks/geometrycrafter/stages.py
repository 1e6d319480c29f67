"""The stages of GeometryCrafter's training, their numbers at both sizes, and how they follow each other.

Numbers of ``full`` are those of the supplement; where it gives none, the comment says so.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from geo4d.datasets.stream import Kind as ClipKind
from geo4d.errors import InputError
from geo4d.models.geometrycrafter.config import Variant
from geo4d.models.geometrycrafter.vae import ImageVAE
from geo4d.models.geometrycrafter.weights import LIGHT_DECODER
from geo4d.models.light_decoder import MOST_FLOPS
from geo4d.models.trained import read_trained
from geo4d.training.data import ReplayPlan
from geo4d.training.loop import LoopConfig, Progress, Task, train
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
from geo4d.training.tasks.geometrycrafter.losses import LightWeights, PointMapWeights
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
    smallest_sizes,
)
from geo4d.training.tasks.geometrycrafter.one_step import OneStep
from geo4d.training.tasks.geometrycrafter.pictures import PictureCoding
from geo4d.training.tasks.geometrycrafter.point_maps import PointMapCoding
from geo4d.training.tasks.geometrycrafter.priors import PriorOfClip, StandInPrior, StoredPriors
from geo4d.training.tasks.geometrycrafter.windows import WindowBatches, WindowCut, Windows, cut_window

logger = logging.getLogger(__name__)

Kind = Literal["pictures", "maps", "unet", "light", "one-step"]

WITH_PRIOR = ("unet", "one-step")
"""Kinds of stages whose network sees a per-frame prior."""

DecoderStart = Literal["fresh", "image-decoder"]


@dataclass(frozen=True)
class Stage:
    """One run of the loop.

    Attributes:
        kind: what is trained.
        after: the stage whose folder it starts from; None: from published weights, or from nothing.
        cut: size and length of the windows.
        loop: steps, batch, rates.
        temporal_only: train the layers that mix frames.
        clips: which packed sets feed it; sets of single pictures feed stages of single frames only.
        weights: of the losses of the point-map VAE.
        noise: levels of the UNet's training.
        light_weights: of the losses of the light decoder.
        first_clip: number of the first generated clip.
        note: one line for people.
    """

    kind: Kind
    after: str | None
    cut: WindowCut
    loop: LoopConfig
    temporal_only: bool = False
    clips: ClipKind = "video"
    weights: PointMapWeights = field(default_factory=PointMapWeights)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    light_weights: LightWeights = field(default_factory=LightWeights)
    first_clip: int = 0
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """A model size with its stages.

    Attributes:
        stages: by name, in order.
        chain: what ``all`` runs, in order.
        sizes: of fresh networks.
        fresh: stages without a start begin with fresh networks (no published weights are needed).
        clip_frames: frames of a generated clip.
        seed: of clips, noise and start.
    """

    stages: Mapping[str, Stage]
    chain: tuple[str, ...]
    sizes: Sizes
    fresh: bool
    clip_frames: int
    seed: int


def full() -> Preset:
    """The published recipe: Stable Video Diffusion's autoencoder frozen, the UNet from DepthCrafter's weights."""
    seed = 17
    size = (320, 640)
    # Rates, steps and batches of the VAE, rate and batch of the UNet: supplement. It gives no number of steps for the
    # UNet and no warm-up, weight decay or average; these are ours.
    loop = LoopConfig(
        num_steps=40_000, batch=64, learning_rate=1e-4, warmup=500, decay=0.0, weight_decay=0.01, betas=(0.9, 0.999),
        ema_decay=0.9999, evaluate_every=0, save_every=1000, seed=seed,
    )  # fmt: skip
    unet = replace(loop, num_steps=50_000, batch=8, learning_rate=1e-5, checkpointing=True)
    stages = {
        "maps": Stage(
            "maps", None, WindowCut(size, (1, 1), seed=seed), loop, clips="all",
            note="offset encoder and point-map decoder on single pictures",
        ),
        "maps-video": Stage(
            "maps", "maps", WindowCut(size, (1, 8), seed=seed), replace(loop, num_steps=20_000, batch=8),
            temporal_only=True, note="temporal layers of the point-map decoder on video of 1 to 8 frames",
        ),
        "unet": Stage(
            "unet", "maps-video", WindowCut(size, (1, 25), seed=seed), unet,
            note="the diffusion network on 1 to 25 frames",
        ),
        "unet-long": Stage(
            "unet", "unet", WindowCut(size, (1, 110), seed=seed), unet, temporal_only=True,
            note="its temporal layers on 1 to 110 frames",
        ),
    }  # fmt: skip
    chain = tuple(stages)
    # Beyond the paper, so that every number is ours.
    stages |= {
        "light-decoder": Stage(
            "light", "maps-video", WindowCut(size, (1, 8), seed=seed),
            replace(loop, num_steps=60_000, batch=8, learning_rate=3e-4, decay=0.5),
            note="a small decoder, distilled from the point-map decoder",
        ),
        "one-step": Stage(
            "one-step", "unet-long", WindowCut(size, (1, 25), seed=seed), replace(unet, num_steps=20_000),
            note="a student that takes one step where the diffusion network takes five",
        ),
    }  # fmt: skip
    return Preset(stages, chain, Sizes(), fresh=False, clip_frames=110, seed=seed)


def smallest() -> Preset:
    """All stages in minutes on one core, with a picture autoencoder of its own in place of the published one."""
    seed = 7
    size = (64, 64)
    loop = LoopConfig(
        num_steps=60, batch=4, learning_rate=1e-3, warmup=10, decay=0.3, precision="no", ema_decay=0.98,
        log_every=20, evaluate_every=0, save_every=20, seed=seed,
    )  # fmt: skip
    weights = PointMapWeights(alphas=(2, 4, 8))
    video = replace(loop, batch=2, num_steps=30)
    stages = {
        "pictures": Stage(
            "pictures", None, WindowCut(size, (1, 2), seed=seed), loop, clips="all",
            note="picture autoencoder in the role of Stable Video Diffusion's",
        ),
        "maps": Stage(
            "maps", "pictures", WindowCut(size, (1, 1), seed=seed), loop, clips="all", weights=weights,
            first_clip=10_000, note="offset encoder and point-map decoder on single pictures",
        ),
        "maps-video": Stage(
            "maps", "maps", WindowCut(size, (1, 4), seed=seed), replace(video, learning_rate=5e-4), weights=weights,
            temporal_only=True, first_clip=20_000, note="temporal layers of the point-map decoder",
        ),
        "unet": Stage(
            "unet", "maps-video", WindowCut(size, (1, 4), seed=seed), replace(loop, num_steps=60),
            first_clip=30_000, note="the diffusion network",
        ),
        "unet-long": Stage(
            "unet", "unet", WindowCut(size, (1, 8), seed=seed), replace(video, learning_rate=5e-4), temporal_only=True,
            first_clip=40_000, note="its temporal layers on longer windows",
        ),
    }  # fmt: skip
    chain = tuple(stages)
    stages |= {
        "light-decoder": Stage(
            "light", "maps-video", WindowCut(size, (1, 4), seed=seed), replace(loop, learning_rate=2e-3),
            light_weights=LightWeights(alphas=(2, 4, 8)), first_clip=50_000,
            note="a small decoder, distilled from the point-map decoder",
        ),
        "one-step": Stage(
            "one-step", "unet-long", WindowCut(size, (1, 4), seed=seed), replace(video, learning_rate=2e-4),
            first_clip=60_000, note="a student that takes one step where the diffusion network takes five",
        ),
    }  # fmt: skip
    return Preset(stages, chain, smallest_sizes(), fresh=True, clip_frames=8, seed=seed)


PRESETS = {"smallest": smallest, "full": full}


def find_chain(preset_name: str) -> list[str]:
    """Stages that ``all`` runs, in order.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if preset_name not in PRESETS:
        raise ValueError(
            f"expected a preset of geometrycrafter out of {', '.join(PRESETS)}, got {preset_name!r}"
        )
    return list(PRESETS[preset_name]().chain)


def find_stage(preset_name: str, stage_name: str) -> tuple[Preset, Stage]:
    """Look both names up.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    find_chain(preset_name)
    preset = PRESETS[preset_name]()
    if stage_name not in preset.stages:
        raise ValueError(
            f"expected a stage of geometrycrafter's '{preset_name}' out of {', '.join(preset.stages)}, got {stage_name!r}"
        )
    return preset, preset.stages[stage_name]


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
        num_validation: generated windows that check the run.
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
        preset.seed + offset, stage.cut.size, preset.clip_frames, indoor=2.0, open_rooms=0.25
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


def validation_windows(preset: Preset, stage: Stage, count: int, prior: PriorOfClip | None) -> list[Windows]:
    """Beginnings of generated clips that no stage trains on, one window of whole pictures each.

    Args:
        stage: its longest window is the length, but no more than a clip has.
        count: number of windows.
        prior: asked for the whole clip; None for stages without.
    """
    source = generated_source(preset, stage, VALIDATION_OFFSET)
    frames = torch.arange(min(stage.cut.frames[1], preset.clip_frames)).numpy()
    windows = []
    for number in range(count):
        clip = render_clip(source, number)
        found = None if prior is None else prior(clip)
        windows.append(cut_window(clip, found, frames, stage.cut.size, 1.0, number))
    return windows


def _make_task(preset: Preset, stage: Stage, name: str, run: StageRun, prior: PriorOfClip | None) -> Task:
    validation = validation_windows(preset, stage, run.num_validation, prior)
    # A decoder that changes is not the one a light decoder was distilled from.
    stale = (LIGHT_DECODER,) if stage.kind in ("pictures", "maps") else ()
    plan = FolderPlan(run.start, _facts(preset, stage, name, run, prior), stale)
    sizes = preset.sizes
    if stage.kind == "pictures":
        from geo4d.models.geometrycrafter.embedding import build_image_encoder

        encoder = build_image_encoder(sizes.image_encoder)
        vae = ImageVAE(sizes.image_vae, with_decoder=True)
        return PictureCoding(vae, encoder, sizes.image_encoder, plan, validation, seed=preset.seed)
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
            point_maps, FrozenNetworks(image_vae), stage.weights, plan, temporal_only=stage.temporal_only,
            validation=validation,
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
