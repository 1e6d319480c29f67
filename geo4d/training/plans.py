"""What a recipe is made of: streams of clips, stages, presets of a family, and what one run of a stage is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.config import full as full_config
from geo4d.models.light_decoder import LightDecoderConfig
from geo4d.models.tiny.config import Modality, TinyConfig, tiny_preset
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.loop import LoopConfig
from geo4d.training.sources import SyntheticSource
from geo4d.training.tasks.tiny.batches import WindowSampling
from geo4d.training.tasks.tiny.tasks import DiffusionConfig

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


@dataclass(frozen=True)
class StageRun:
    """What one run of a stage is told, beside its preset.

    Attributes:
        folder: of the run; the weights end in ``folder/weights``.
        start: weights of the stage before (file or folder); needed by every stage but the first.
        shards: packed clips (folder or URL) in place of the generator.
        workers: processes that make clips.
        num_validation: windows that check the run; from scenes of their own.
        validation_shards: packed clips that they come from, in place of generated ones.
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
    validation_shards: str | Path | None = None
    first_clip: int | None = None
    modalities: tuple[str, ...] | None = None
    zoom: float | None = None
    resume: bool = False
    device: str | None = None


def published_order(
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
