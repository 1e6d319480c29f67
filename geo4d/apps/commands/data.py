"""``geo4d data pack``: make training clips ahead of time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class DataOptions:
    """Work with training data.

    'pack' writes clips of the generator, with the evidence that training shows the network, as webdataset shards. They
    are what the given stage would make itself, so training from them differs only in where the time is spent.
    """

    action: Annotated[Literal["pack"], tyro.conf.Positional]
    """What to do."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the shards."""
    stage: str = "pairs"
    """The stage they are for: sets size, frames and frame rates."""
    preset: Literal["tiny", "smallest", "full"] = "tiny"
    """Its preset."""
    clips: int = 1024
    """How many."""
    per_shard: int = 256
    """Clips per file."""
    workers: int = 1
    """Processes that make clips."""


def run(options: DataOptions) -> int:
    """Pack the clips."""
    from geo4d.training.shards import pack_clips
    from geo4d.training.stages import find_stage

    preset, stage = find_stage(options.preset, options.stage)
    stream = stage.streams[0]
    source = stream.source(preset.seed)
    pack_clips(
        source,
        options.output,
        options.clips,
        per_shard=options.per_shard,
        first=stage.first_clip,
        num_workers=options.workers,
    )
    return 0
