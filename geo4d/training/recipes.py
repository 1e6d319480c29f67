"""The recipe: which stages a model is trained through, in which order, and with which settings.

``geo4d train STAGE --family FAMILY --preset PRESET`` runs one stage; the next one starts from its weights; ``all`` runs
the stages of ``Preset.chain`` one after the other.

Geo4D trains its codec's decoder, and the diffusion network on point maps first, then at several resolutions, then with
ray maps, then with disparity. Both families have these stages. The bundled weights took a shorter way to the same end
(``pairs``, ``clips``, ``windows``: all modalities together, more frames from stage to stage), because on a few hours of
CPU the number of different scenes decides; ``docs/training.md`` has the measurements.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.config import full as full_config
from geo4d.models.geo4d.config import small as small_config
from geo4d.models.light_decoder import LightDecoderConfig
from geo4d.models.tiny.config import Modality, TinyConfig, smallest_preset, tiny_preset
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.loop import LoopConfig
from geo4d.training.sources import VALIDATION_OFFSET, SyntheticSource
from geo4d.training.tasks.tiny.batches import WindowSampling
from geo4d.training.tasks.tiny.tasks import DiffusionConfig
from geo4d.video.resize import GEO4D_SIZES

Kind = Literal["codec", "diffusion", "pictures", "decoder", "depth", "calibration", "light", "one-step"]
Family = Literal["tiny", "geo4d"]

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
        swept: size of the pictures that evidence is simulated on, as a share of the clip's; 0 for none.
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
            evidence=EvidenceConfig(scale=self.swept) if self.swept else None,
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
        chain: what ``all`` runs, in order.
        seed: of scenes, noise and start.
        tiny: sizes of a tiny model.
        geo4d: sizes of a Geo4D network.
        light_decoder: sizes of a fresh light decoder of Geo4D's point maps.
        fresh: a Geo4D chain that begins with networks of its own (no published weights are needed).
    """

    family: Family
    stages: Mapping[str, Stage]
    chain: tuple[str, ...]
    seed: int = 20261120
    tiny: TinyConfig = field(default_factory=tiny_preset)
    geo4d: Geo4DConfig = field(default_factory=full_config)
    light_decoder: LightDecoderConfig = field(
        default_factory=lambda: LightDecoderConfig(out_channels=(3, 1), over_time=False)
    )
    fresh: bool = False


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


JOINT = ("codec", "pairs", "clips", "windows", "depth", "calibration")
"""The way of the bundled weights."""


def tiny_full() -> Preset:
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
    return Preset("tiny", stages, JOINT, seed)


def tiny_smallest() -> Preset:
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
    return Preset("tiny", stages, JOINT, seed, smallest_preset())


def geo4d_full() -> Preset:
    """Geo4D at the released size: DynamiCrafter's weights as the start, 16 frames at strides 1 to 3, AdamW 1e-5."""
    seed = 123
    loop = LoopConfig(
        num_steps=100_000, batch=32, accumulate=1, learning_rate=1e-5, warmup=500, decay=0.0, weight_decay=0.01,
        betas=(0.9, 0.999), ema_decay=0.9999, checkpointing=True, evaluate_every=0, save_every=1000, seed=seed,
    )  # fmt: skip
    stages = {
        "decoder": Stage(
            "decoder", None, (Stream((320, 512), 16, swept=0.0),), WindowSampling(4, (1, 2, 3)),
            replace(loop, batch=8), first_clip=900_000,
            note="point-map decoder with uncertainty; the encoder stays frozen",
        ),
    }  # fmt: skip
    # Sizes of the released model (``video.resize``).
    first, *others = (Stream(size, 46, swept=0.0) for size in ((256, 320), *GEO4D_SIZES))
    stages |= _published_order(seed, first, tuple(others), WindowSampling(16, (1, 2, 3)), loop, "decoder")
    chain = tuple(stages)
    stages |= _distilled_stages(
        first, WindowSampling(16, (1, 2, 3)), replace(loop, num_steps=60_000, batch=4, learning_rate=3e-4, decay=0.5),
        replace(loop, num_steps=20_000),
    )  # fmt: skip
    return Preset("geo4d", stages, chain, seed)


def _distilled_stages(
    stream: Stream, sampling: WindowSampling, light: LoopConfig, student: LoopConfig
) -> dict[str, Stage]:
    """Beyond the paper, so that every number is ours: a light decoder of point maps, and a one-step student."""
    every = DiffusionConfig(modalities=("disparity", "points", "rays"))
    return {
        "light-decoder": Stage(
            "light", "decoder", (stream,), replace(sampling, num_frames=min(4, sampling.num_frames)), light,
            first_clip=1_000_000, note="a small decoder, distilled from the point-map decoder",
        ),
        "one-step": Stage(
            "one-step", "disparity", (stream,), sampling, student, every, first_clip=1_100_000,
            note="a student that takes one step where the diffusion network takes five",
        ),
    }  # fmt: skip


def geo4d_smallest() -> Preset:
    """Geo4D's chain in minutes on one core, with a picture codec of its own in place of the published one."""
    seed = 11
    stream = Stream((64, 64), 8, SLOW_FPS, swept=0.0)
    loop = LoopConfig(
        num_steps=40, batch=2, learning_rate=1e-3, warmup=5, decay=0.3, precision="no", ema_decay=0.95,
        log_every=10, evaluate_every=0, save_every=20, seed=seed,
    )  # fmt: skip
    sampling = WindowSampling(2, (1, 2))
    stages = {
        "pictures": Stage(
            "pictures", None, (stream,), sampling, replace(loop, num_steps=80), first_clip=0,
            note="picture codec in the role of DynamiCrafter's",
        ),
        "decoder": Stage(
            "decoder", "pictures", (stream,), sampling, loop, first_clip=900_000,
            note="point-map decoder with uncertainty; the encoder stays frozen",
        ),
    }  # fmt: skip
    other = Stream((64, 128), 8, SLOW_FPS, swept=0.0)
    stages |= _published_order(seed, stream, (other,), WindowSampling(4, (1, 2)), loop, "decoder")
    chain = tuple(stages)
    stages |= _distilled_stages(
        stream,
        WindowSampling(4, (1, 2)),
        replace(loop, learning_rate=2e-3),
        replace(loop, learning_rate=2e-4),
    )
    stages = {name: replace(stage, chunk=8, uses=2) for name, stage in stages.items()}
    light = LightDecoderConfig(out_channels=(3, 1), over_time=False, widths=(64, 32, 16, 8))
    return Preset("geo4d", stages, chain, seed, geo4d=smallest_config(), light_decoder=light, fresh=True)


def smallest_config() -> Geo4DConfig:
    """A Geo4D network of the same classes, the codec's factor of 8 included, that trains on one core."""
    sizes = small_config()
    return replace(
        sizes,
        unet=replace(sizes.unet, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1, 2)),
        vae=replace(sizes.vae, channel_mult=(1, 1, 2, 2), num_res_blocks=1),
    )


PRESETS: Mapping[str, Mapping[str, Callable[[], Preset]]] = {
    "geo4d": {"smallest": geo4d_smallest, "full": geo4d_full},
    "tiny": {"smallest": tiny_smallest, "full": tiny_full},
}
"""Family -> preset -> what makes it; GeometryCrafter's are in ``tasks.geometrycrafter.presets``."""


def find_preset(family: str, preset_name: str) -> Preset:
    """Look both names up.

    Raises:
        ValueError: unknown name; the message lists the known ones, and says what became of an old one.
    """
    if family not in PRESETS:
        raise ValueError(f"expected a family out of {', '.join(PRESETS)}, got {family!r}")
    if preset_name == "tiny":
        raise ValueError(
            "expected --preset smallest or full; what was --preset tiny is now --family tiny --preset full"
        )
    if preset_name not in PRESETS[family]:
        raise ValueError(
            f"expected a preset of {family} out of {', '.join(PRESETS[family])}, got {preset_name!r}"
        )
    return PRESETS[family][preset_name]()


def find_family(stage_name: str, preset_name: str) -> str:
    """The one family that has a stage of this name.

    Raises:
        ValueError: several have, or none.
    """
    found = [name for name in PRESETS if stage_name in find_preset(name, preset_name).stages]
    if len(found) != 1:
        known = "; ".join(f"{name}: {', '.join(find_preset(name, preset_name).stages)}" for name in PRESETS)
        raise ValueError(
            f"expected --family for '{stage_name}', which {' and '.join(found) or 'none of the families'} "
            f"{'have' if found else 'has'}; {known}"
        )
    return found[0]


def find_stage(family: str, preset_name: str, stage_name: str) -> tuple[Preset, Stage]:
    """Look all three names up.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    preset = find_preset(family, preset_name)
    if stage_name not in preset.stages:
        raise ValueError(
            f"expected a stage of {family}'s '{preset_name}' out of {', '.join(preset.stages)}, got {stage_name!r}"
        )
    return preset, preset.stages[stage_name]


@dataclass(frozen=True)
class StageRun:
    """What one run of a stage is told, beside its preset.

    Attributes:
        folder: of the run; the weights end in ``folder/weights``.
        start: weights of the stage before (file or folder); needed by every stage but the first.
        shards: packed clips (folder or URL) in place of the generator.
        workers: processes that make clips.
        num_validation: windows that check the run; from scenes of their own.
        first_clip: in place of the stage's, so that a run that goes on from finished weights sees new scenes.
        modalities: what a Geo4D network has channels of (``widths.MODALITIES``); None: as what it starts from, or all.
        zoom: most that frames of a window are enlarged, changing over the window (``WindowSampling.zoom``); None: as the
            stage says.
        resume: go on from the run's saved state.
        device: see ``train``.
    """

    folder: Path
    start: Path | None = None
    shards: str | Path | None = None
    workers: int = 1
    num_validation: int = 64
    first_clip: int | None = None
    modalities: tuple[str, ...] | None = None
    zoom: float | None = None
    resume: bool = False
    device: str | None = None


def validation_source(preset: Preset, stage: Stage) -> tuple[SyntheticSource, int]:
    """Clips of the generator that no stage trains on, at the stage's first size, and how many frames of each to take."""
    stream = stage.streams[0]
    frames = max(stage.sampling.num_frames, min(8, stream.clip_frames * 2))
    evidence = EvidenceConfig(scale=stream.swept) if stream.swept else None
    source = SyntheticSource(
        preset.seed + VALIDATION_OFFSET, stream.size, frames, (2.0, 4.0, 6.0, 12.0), evidence=evidence
    )
    return source, frames
