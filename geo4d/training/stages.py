"""The recipe: which stages a model is trained through, in which order, and with which settings.

``geo4d train STAGE --preset PRESET`` runs one stage; the next one starts from its weights.

Geo4D trains its codec's decoder, and the diffusion network on point maps first, then at several resolutions, then with
ray maps, then with disparity. Both families have these stages. The bundled weights took a shorter way to the same end
(``pairs``, ``clips``, ``windows``: all modalities together, more frames from stage to stage), because on a few hours of
CPU the number of different scenes decides; ``docs/training.md`` has the measurements.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from geo4d.datasets.sampling import draw_mixture
from geo4d.errors import InputError
from geo4d.models.tiny.config import Modality, TinyConfig, smallest_preset, tiny_preset
from geo4d.training.data import Batch, ClipSource, ReplayPlan
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.loop import LoopConfig, Progress, train
from geo4d.training.shards import ShardSource
from geo4d.training.sources import VALIDATION_OFFSET, SyntheticSource
from geo4d.training.tasks.tiny.batches import StreamedBatches, WindowSampling
from geo4d.training.tasks.tiny.tasks import DiffusionConfig

Kind = Literal["codec", "diffusion", "decoder", "depth", "calibration"]

SLOW_FPS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Frame rates of short clips: few frames must span as much motion as the sixteen of a window at inference."""
WINDOW_FPS = (3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


@dataclass(frozen=True)
class Stream:
    """Clips of one size.

    Attributes:
        size: (height, width).
        clip_frames: frames per clip.
        fps: frame rates of the generator.
        indoor: factor on the weight of rooms.
        open_rooms: share kept of the rooms that show the sky where a wall is missing.
        blank: share of clips with walls mostly without texture.
        pitched: share of clips whose camera looks down on its scene.
        swept: size of the pictures that evidence is simulated on, as a share of the clip's.
        ratio: weight among the streams of a stage.
    """

    size: tuple[int, int]
    clip_frames: int
    fps: tuple[float, ...] = WINDOW_FPS
    indoor: float = 2.0
    open_rooms: float = 0.25
    blank: float = 0.4
    pitched: float = 0.0
    swept: float = 0.5
    ratio: float = 1.0

    def source(self, seed: int) -> SyntheticSource:
        """The generator of these clips."""
        return SyntheticSource(
            seed,
            self.size,
            self.clip_frames,
            self.fps,
            indoor=self.indoor,
            open_rooms=self.open_rooms,
            blank=self.blank,
            pitched=self.pitched,
            evidence=EvidenceConfig(scale=self.swept),
        )


@dataclass(frozen=True)
class Stage:
    """One run of the loop (or one closed-form fit).

    Attributes:
        kind: what is trained.
        after: the stage whose weights it starts from, or None.
        streams: where clips come from; several sizes are several streams, one per step.
        sampling: windows cut from the clips.
        loop: steps, batch, rates.
        diffusion: loss of a diffusion stage.
        chunk, uses: replay of the clips.
        first_clip: number of the first clip, so that stages do not repeat each other's scenes.
        note: one line for ``geo4d train --help`` and the log.
    """

    kind: Kind
    after: str | None
    streams: tuple[Stream, ...]
    sampling: WindowSampling = field(default_factory=WindowSampling)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=1000, batch=8))
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    chunk: int = 256
    uses: int = 5
    first_clip: int = 0
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """A model size with its stages.

    Attributes:
        family: which training tasks apply.
        stages: by name, in order.
        seed: of scenes, noise and start.
        tiny: sizes of a tiny model.
    """

    family: Literal["tiny", "geo4d"]
    stages: Mapping[str, Stage]
    seed: int = 20261120
    tiny: TinyConfig = field(default_factory=tiny_preset)


def _joint_stages(seed: int) -> dict[str, Stage]:
    """Codec, three joint stages, depth network: the way of the bundled weights."""
    pairs = Stream((64, 112), 4, SLOW_FPS)
    upright = Stream((112, 64), 4, SLOW_FPS, ratio=0.25)
    # People hold phones upright, and some devices film on their side.
    turned = 0.12
    return {
        "codec": Stage("codec", None, (pairs,), chunk=300, note="bases and spreads of the latent, in closed form"),
        "pairs": Stage(
            "diffusion", "codec", (pairs, upright), WindowSampling(2, (1, 2, 3), turned=turned),
            LoopConfig(num_steps=30_000, batch=16, evaluate_every=500, save_every=250, seed=seed),
            first_clip=1_000, note="two frames of a clip, most scenes per second",
        ),
        "clips": Stage(
            "diffusion", "pairs",
            (Stream((96, 160), 4, SLOW_FPS), Stream((160, 96), 4, SLOW_FPS, ratio=0.25)),
            WindowSampling(4, (1,), turned=turned),
            LoopConfig(
                num_steps=6_000, batch=4, learning_rate=7e-4, evaluate_every=500, save_every=200, decay=0.0, seed=seed
            ),
            chunk=128, first_clip=200_000, note="four frames at the size of inference",
        ),
        "windows": Stage(
            "diffusion", "clips", (Stream((96, 160), 16), Stream((160, 96), 16, ratio=0.25)),
            WindowSampling(16, (1,), turned=turned),
            LoopConfig(
                num_steps=1_000, batch=2, learning_rate=4e-4, evaluate_every=200, save_every=50, decay=0.7, seed=seed
            ),
            chunk=48, first_clip=300_000, note="sixteen frames",
        ),
        "depth": Stage(
            "depth", "windows",
            tuple(
                Stream(size, 4, SLOW_FPS, pitched=0.25, swept=0.25, ratio=ratio)
                for size, ratio in (((192, 320), 1.0), ((224, 288), 1.0), ((320, 192), 0.5))
            ),
            WindowSampling(4, (1,), turned=turned),
            LoopConfig(
                num_steps=2_600, batch=4, learning_rate=1.2e-3, decay=0.5, evaluate_every=400, save_every=100, seed=seed
            ),
            chunk=64, uses=2, first_clip=400_000, note="twice the size, with the picture encoder: edges, spread, sky",
        ),
        "calibration": Stage(
            "calibration", "depth", (Stream((192, 320), 16, swept=0.25),), WindowSampling(16, (1,)),
            chunk=48, first_clip=450_000, note="from the predicted spread to the error seen there, in closed form",
        ),
    }  # fmt: skip


def _published_order(
    seed: int,
    small: Stream,
    others: tuple[Stream, ...],
    sampling: WindowSampling,
    loop: LoopConfig,
    start: str,
) -> dict[str, Stage]:
    """Geo4D's order: point map, several resolutions, ray maps, disparity."""

    def diffusion(modalities: tuple[Modality, ...]) -> DiffusionConfig:
        return DiffusionConfig(modalities=modalities, seed=seed)

    several = (small, *others)
    return {
        "points": Stage(
            "diffusion", start, (small,), sampling, loop, diffusion(("points",)),
            first_clip=500_000, note="point map alone, one size",
        ),
        "multiresolution": Stage(
            "diffusion", "points", several, sampling, loop, diffusion(("points",)),
            first_clip=600_000, note="point map at several sizes",
        ),
        "rays": Stage(
            "diffusion", "multiresolution", several, sampling, loop, diffusion(("points", "rays")),
            first_clip=700_000, note="ray maps added",
        ),
        "disparity": Stage(
            "diffusion", "rays", several, sampling, loop, diffusion(("disparity", "points", "rays")),
            first_clip=800_000, note="disparity added",
        ),
    }  # fmt: skip


def tiny() -> Preset:
    """The bundled size."""
    seed = 20261120
    stages = _joint_stages(seed)
    stages |= _published_order(
        seed,
        Stream((64, 112), 8, SLOW_FPS),
        (Stream((80, 80), 8, SLOW_FPS), Stream((96, 160), 8, SLOW_FPS)),
        WindowSampling(4, (1, 2)),
        LoopConfig(num_steps=5_000, batch=8, evaluate_every=500, save_every=250, seed=seed),
        "codec",
    )
    return Preset("tiny", stages, seed)


def smallest() -> Preset:
    """All stages in seconds: for tests, and to see that a machine can train."""
    seed = 7
    stream = Stream((32, 48), 4, SLOW_FPS)
    loop = LoopConfig(num_steps=4, batch=2, warmup=2, log_every=2, evaluate_every=0, save_every=2, seed=seed)
    stages = {
        name: replace(
            stage,
            streams=(stream,),
            sampling=replace(stage.sampling, num_frames=2, strides=(1, 2)),
            loop=replace(loop, learning_rate=stage.loop.learning_rate),
            chunk=4,
            uses=2,
        )
        for name, stage in _joint_stages(seed).items()
    }
    stages |= _published_order(
        seed, stream, (Stream((32, 32), 4, SLOW_FPS),), WindowSampling(2, (1, 2)), loop, "codec"
    )
    twice = Stream((64, 96), 4, SLOW_FPS, swept=0.25)
    stages |= {name: replace(stages[name], streams=(twice,)) for name in ("depth", "calibration")}
    stages = {name: replace(stage, chunk=4, uses=2) for name, stage in stages.items()}
    return Preset("tiny", stages, seed, smallest_preset())


def full() -> Preset:
    """Geo4D at the released size: DynamiCrafter's weights as the start, 16 frames at strides 1 to 3, AdamW 1e-5."""
    seed = 123
    loop = LoopConfig(
        num_steps=100_000, batch=32, accumulate=1, learning_rate=1e-5, warmup=500, decay=0.0, weight_decay=0.01,
        betas=(0.9, 0.999), ema_decay=0.9999, checkpointing=True, evaluate_every=0, save_every=1000, seed=seed,
    )  # fmt: skip
    small = Stream((256, 320), 46)
    stages = {
        "decoder": Stage(
            "decoder", None, (Stream((320, 512), 16),), WindowSampling(4, (1, 2, 3)), replace(loop, batch=8),
            first_clip=900_000, note="point-map decoder with uncertainty; the encoder stays frozen",
        ),
    }  # fmt: skip
    stages |= _published_order(
        seed,
        small,
        (Stream((320, 512), 46), Stream((384, 512), 46)),
        WindowSampling(16, (1, 2, 3)),
        loop,
        "start",
    )
    stages["points"] = replace(stages["points"], after=None)
    return Preset("geo4d", stages, seed)


PRESETS = {"tiny": tiny, "smallest": smallest, "full": full}


def find_stage(preset_name: str, stage_name: str) -> tuple[Preset, Stage]:
    """Look both names up.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if preset_name not in PRESETS:
        raise ValueError(f"expected a preset out of {', '.join(PRESETS)}, got {preset_name!r}")
    preset = PRESETS[preset_name]()
    if stage_name not in preset.stages:
        raise ValueError(
            f"expected a stage of '{preset_name}' out of {', '.join(preset.stages)}, got {stage_name!r}"
        )
    return preset, preset.stages[stage_name]


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
    stage: Stage, seed: int, *, shards: Path | None = None, num_workers: int = 0
) -> MixedBatches:
    """The batches of a stage, from the generator or from packed clips.

    Raises:
        InputError: ``shards`` is given for a stage of several sizes, or holds no clips.
    """
    if shards is not None and len(stage.streams) > 1:
        raise InputError("expected a stage of one size with packed clips; this one mixes several sizes")
    parts = []
    for number, stream in enumerate(stage.streams):
        source: ClipSource = stream.source(seed + number)
        first = stage.first_clip
        if shards is not None:
            source, first = ShardSource(shards), 0
        plan = ReplayPlan(seed + number, stage.chunk, stage.uses, first)
        sampling = replace(stage.sampling, seed=seed)
        parts.append(StreamedBatches(source, plan, sampling, stage.loop.batch, num_workers))
    return MixedBatches(tuple(parts), tuple(stream.ratio for stream in stage.streams), seed)


def run_stage(
    preset_name: str,
    stage_name: str,
    folder: Path,
    *,
    start: Path | None = None,
    shards: Path | None = None,
    loop: LoopConfig | None = None,
    num_workers: int = 1,
    num_validation: int = 64,
    first_clip: int | None = None,
    resume: bool = False,
    device: str | None = None,
) -> Progress:
    """Run one stage of a preset.

    Args:
        folder: of the run; the weights end in ``folder/weights``.
        start: weights of the stage before (file or folder); needed by every stage but the first.
        shards: packed clips in place of the generator.
        loop: in place of the preset's (see ``override``).
        num_workers: processes that make clips.
        num_validation: windows that check the run; from scenes of their own.
        first_clip: in place of the stage's, so that a run that goes on from finished weights sees new scenes.
        resume: go on from the run's saved state.
        device: see ``train``.
    Raises:
        ValueError: unknown names.
        InputError: the weights to start from are missing.
    """
    preset, stage = find_stage(preset_name, stage_name)
    if loop is not None:
        stage = replace(stage, loop=loop)
    if first_clip is not None:
        stage = replace(stage, first_clip=first_clip)
    torch.manual_seed(stage.loop.seed)
    if preset.family == "geo4d":
        from geo4d.training.full import make_full_task

        task = make_full_task(stage, start)
    else:
        if stage.after is not None and start is None:
            raise InputError(
                f"stage '{stage_name}' starts from the weights of '{stage.after}'; name them with --start"
            )
        if stage.kind == "codec":
            return _fit_codec(preset, stage, folder, shards)
        assert start is not None
        if stage.kind == "calibration":
            return _fit_calibration(preset, stage, start, folder, shards)
        task = _tiny_task(preset, stage, start, num_validation)
    batches = stage_batches(stage, preset.seed, shards=shards, num_workers=num_workers)
    return train(task, batches, stage.loop, folder, resume=resume, device=device)


def _weight_file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def _fit_codec(preset: Preset, stage: Stage, folder: Path, shards: Path | None) -> Progress:
    from geo4d.models.tiny.encoder import imagenet_encoder
    from geo4d.models.tiny.model import TinyModel
    from geo4d.models.tiny.weights import save_model
    from geo4d.training.tasks.tiny.tasks import fit_codec

    stream = stage.streams[0]
    source: ClipSource = SyntheticSource(preset.seed, stream.size, stream.clip_frames, stream.fps)
    if shards is not None:
        source = ShardSource(shards)
    model = TinyModel(preset.tiny)
    if preset.tiny.encoder == "lite0":
        model.depth.encoder.load_state_dict(imagenet_encoder().state_dict())
    fit_codec(model.codec, source, stage.chunk)
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    save_model(model, folder / "weights" / "model.safetensors", {"stage": "codec", "clips": stage.chunk})
    return Progress()


def _fit_calibration(
    preset: Preset, stage: Stage, start: Path, folder: Path, shards: Path | None
) -> Progress:
    from geo4d.models.tiny.weights import load_model, read_record, save_model
    from geo4d.training.calibrate import fit_calibration

    source: ClipSource = stage.streams[0].source(preset.seed)
    first = stage.first_clip
    if shards is not None:
        source, first = ShardSource(shards), 0
    file = _weight_file(start)
    model = load_model(file)
    model.calibration = fit_calibration(model, source, range(first, first + stage.chunk))
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    save_model(model, folder / "weights" / "model.safetensors", read_record(file))
    return Progress()


def _tiny_task(preset: Preset, stage: Stage, start: Path, num_validation: int) -> Any:
    from geo4d.models.tiny.weights import load_model
    from geo4d.training.tasks.tiny.batches import validation_batches
    from geo4d.training.tasks.tiny.tasks import TinyDepth, TinyDiffusion

    model = load_model(_weight_file(start)).train()
    model.network.checkpointing = model.depth.checkpointing = stage.loop.checkpointing
    validation = []
    if num_validation:
        stream = stage.streams[0]
        frames = max(stage.sampling.num_frames, min(8, stream.clip_frames * 2))
        source = SyntheticSource(
            preset.seed + VALIDATION_OFFSET,
            stream.size,
            frames,
            (2.0, 4.0, 6.0, 12.0),
            evidence=EvidenceConfig(scale=stream.swept),
        )
        validation = validation_batches(source, num_validation, frames)
    if stage.kind == "depth":
        return TinyDepth(model, validation, seed=preset.seed)
    return TinyDiffusion(model, replace(stage.diffusion, seed=preset.seed), validation)
