"""The clips of a stage that are not generated for it: packed ones to learn from, and those that check a run."""

from pathlib import Path

from geo4d.training.data import ClipSource, TrainingClip
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.plans import Preset, Stage, StageRun
from geo4d.training.shards import ShardSource
from geo4d.training.sources import VALIDATION_OFFSET, SyntheticSource


def packed_source(
    stage: Stage, number: int, seed: int, shards: str | Path, holes: bool = False
) -> ShardSource:
    """Packed clips as one of a stage's streams takes them.

    Args:
        number: of the stream.
    """
    stream, sampling = stage.streams[number], stage.sampling
    evidence = EvidenceConfig(scale=stream.swept) if stream.swept else None
    least = (sampling.num_frames - 1) * min(sampling.strides) + 1
    return ShardSource(shards, seed, size=stream.size, evidence=evidence, holes=holes, least=least)


def validation_source(preset: Preset, stage: Stage) -> tuple[SyntheticSource, int]:
    """Clips of the generator that no stage trains on, at the stage's first size, and how many frames of each to take."""
    stream = stage.streams[0]
    frames = max(stage.sampling.num_frames, min(8, stream.clip_frames * 2))
    evidence = EvidenceConfig(scale=stream.swept) if stream.swept else None
    source = SyntheticSource(
        preset.seed + VALIDATION_OFFSET, stream.size, frames, (2.0, 4.0, 6.0, 12.0), evidence=evidence
    )
    return source, frames


def validation_clips(
    preset: Preset, stage: Stage, run: StageRun, *, holes: bool = False
) -> tuple[ClipSource, int, int]:
    """Where the clips come from that check a run: their source, frames to take of each, and how many there are.

    Args:
        run: ``num_validation`` clips, or all of ``validation_shards`` if they are fewer; these are spread evenly over
            the packed clips.
        holes: see ``packed_source``.
    Raises:
        InputError: no packed clips there, or only pictures for a stage of videos.
    """
    if run.validation_shards is None:
        return *validation_source(preset, stage), run.num_validation
    packed = packed_source(stage, 0, preset.seed, run.validation_shards, holes)
    count = min(run.num_validation, len(packed))

    def clip(number: int) -> TrainingClip:
        return packed(number * len(packed) // count)

    return clip, stage.sampling.num_frames, count
