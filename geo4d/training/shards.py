"""Packed clips as a source of training clips: evidence that was packed with them, or simulated when they are read."""

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from geo4d.datasets.clips import Clip, Cover
from geo4d.datasets.sampling import draw_mixture
from geo4d.datasets.shards import PackedClips, ShardWriter
from geo4d.errors import InputError
from geo4d.training.data import ClipSource, TrainingClip, ordered_clips
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.sources import evidence_fields

EVIDENCE = "evidence.safetensors"
"""Member of a packed clip with the fields ``evidence_*`` of a ``TrainingClip``; older shards call them ``prior_*``."""

DEFAULT_EVIDENCE = EvidenceConfig()


def pack_clips(
    source: ClipSource,
    folder: Path | str,
    count: int,
    *,
    per_shard: int = 256,
    first: int = 0,
    num_workers: int = 0,
    name: str = "synthetic",
) -> None:
    """Write clips ``first .. first + count`` of a generator, with their evidence, as packed clips.

    Args:
        source: gives the clips.
        folder: new or empty, or a URL.
        count: number of clips.
        per_shard: clips per tar file.
        first: number of the first clip.
        num_workers: processes that make clips; 0 makes them here. The shards do not depend on it.
        name: of the source in the index.
    Raises:
        OutputError: the folder holds packed clips already.
    """
    writer = ShardWriter(folder, per_shard=per_shard, rgb="png")

    def clips() -> Iterator[Clip]:
        numbers = range(first, first + count)
        for number, clip in zip(numbers, ordered_clips(source, numbers, num_workers), strict=True):
            yield _to_clip(clip, f"{name}@{number}", name)

    writer.write_source(name, clips())
    writer.close()


def _to_clip(clip: TrainingClip, name: str, dataset: str) -> Clip:
    evidence = {key: value for key, value in vars(clip).items() if key.startswith("evidence_")}
    return Clip(
        name=name,
        dataset=dataset,
        rgb=clip.rgb.numpy(),
        depth=clip.depth.float().numpy(),
        intrinsics=clip.intrinsics.double().numpy(),
        times_s=clip.times_s.double().numpy(),
        c2w=clip.c2w.double().numpy(),
        extras={EVIDENCE: save(evidence)},
    )


def training_clip(
    clip: Clip, evidence: EvidenceConfig | None, rng: np.random.Generator, *, holes: bool = False
) -> TrainingClip:
    """A clip with evidence as it would look at inference: that which was packed with it, else simulated.

    Args:
        evidence: how evidence is simulated; None: the stage looks at none.
        rng: of the simulation.
        holes: the stage knows unknown depth from sky.
    Raises:
        InputError: no pose in a frame, or pixels of unknown depth for a stage that takes what is not finite for sky.
    """
    if clip.c2w is None or not np.isfinite(clip.c2w).all():
        raise InputError(f"expected a pose for every frame of {clip.name} to train on its geometry, got none")
    unknown = float(np.isnan(clip.depth).mean())
    if unknown and not holes:
        raise InputError(
            f"expected depth or sky in every pixel of {clip.name}, {unknown:.2%} are unknown; the stages of the tiny "
            "model take them for sky and would learn it (those of geo4d and geometrycrafter do not)"
        )
    rgb, depth = torch.from_numpy(clip.rgb), torch.from_numpy(clip.depth)
    intrinsics, c2w = torch.from_numpy(clip.intrinsics).float(), torch.from_numpy(clip.c2w).float()
    times = torch.from_numpy(np.asarray(clip.times_s - clip.times_s[0], np.float32))
    if evidence is not None and EVIDENCE in clip.extras:
        known = _packed_evidence(clip)
    else:
        known = evidence_fields(rgb, depth, intrinsics, c2w, evidence, rng)
    # Half precision ends at 65504: what lies beyond would be sky.
    depth = torch.where(torch.isfinite(depth), depth.clamp(max=6e4), depth).half()
    return TrainingClip(rgb=rgb, depth=depth, intrinsics=intrinsics, c2w=c2w, times_s=times, **known)


def _packed_evidence(clip: Clip) -> dict[str, torch.Tensor]:
    stored = load(clip.extras[EVIDENCE])
    # Shards that were packed before name the same arrays prior_*.
    known = {re.sub("^prior_", "evidence_", name): value for name, value in stored.items()}
    wanted = {field.name for field in fields(TrainingClip) if field.name.startswith("evidence_")}
    if set(known) != wanted:
        raise InputError(
            f"expected {', '.join(sorted(wanted))} in {EVIDENCE} of {clip.name}, got {sorted(stored)}"
        )
    return known


def resized_clip(clip: Clip, size: tuple[int, int]) -> Clip:
    """The clip resized until (height, width) is covered, and its middle; packed evidence is of another size and left out.

    Depth is that of the nearest pixel; intrinsics follow.
    """
    if clip.size == size:
        return clip
    cover = Cover(clip.size, size)
    moving = clip.dynamic
    return replace(
        clip,
        rgb=np.stack([cover.picture(frame) for frame in clip.rgb]),
        depth=np.stack([cover.map(frame) for frame in clip.depth]),
        intrinsics=cover.intrinsics(clip.intrinsics),
        dynamic=None if moving is None else np.stack([cover.map(m.astype(np.uint8)) > 0 for m in moving]),
        extras={name: value for name, value in clip.extras.items() if name != EVIDENCE},
    )


class ShardSource:
    """A ``ClipSource`` over packed clips; clip numbers beyond the end start again.

    Where ratios were packed, clip ``i`` is of a source drawn by them (a set without one counts by its frames), and any of
    its clips.

    Asking for a clip raises ``InputError`` where it cannot be read, is too short, lacks a pose, or has pixels of unknown
    depth that the stage cannot take.

    Args:
        folder: of the packed clips, or its URL.
        seed: of simulated evidence, for clips packed without; clip ``i`` gets the same every time it is read.
        size: (height, width) that clips are brought to; None: as they were packed.
        evidence: how evidence is simulated; None: the stage looks at none.
        holes: the stage knows unknown depth from sky.
        least: frames that a clip needs.
    Raises:
        InputError: no packed clips, those of another version, or a shard is missing or cut short.
    """

    def __init__(
        self,
        folder: Path | str,
        seed: int = 0,
        *,
        size: tuple[int, int] | None = None,
        evidence: EvidenceConfig | None = DEFAULT_EVIDENCE,
        holes: bool = False,
        least: int = 1,
    ) -> None:
        self.packed, self.seed, self.evidence = PackedClips(folder), seed, evidence
        self.size, self.holes, self.least = size, holes, least

        ends = np.cumsum([source.num_clips for source in self.packed.sources])
        # A stage that wants several frames leaves sets of single pictures out.
        self._ranges = [
            (range(int(end) - source.num_clips, int(end)), source)
            for end, source in zip(ends, self.packed.sources, strict=True)
            if source.num_clips and (least == 1 or not source.still)
        ]
        if not self._ranges:
            raise InputError(
                f"expected videos among the packed clips of {folder}, found single pictures only"
            )

    def __len__(self) -> int:
        return sum(len(numbers) for numbers, _ in self._ranges)

    def _number(self, index: int) -> int:
        """Clip of the shards that clip ``index`` of the source is: in turns, or by the ratios they were packed with."""
        if all(source.ratio is None for _, source in self._ranges):
            position = index % len(self)
            for numbers, _ in self._ranges:
                if position < len(numbers):
                    break
                position -= len(numbers)
            return numbers[position]
        weights = [source.weight for _, source in self._ranges]
        numbers, _ = self._ranges[draw_mixture(weights, index, self.seed)]
        return numbers[int(np.random.default_rng((self.seed, 47, index)).integers(len(numbers)))]

    def clip(self, index: int) -> Clip:
        """Packed clip that clip ``index`` of the source is, as it was packed."""
        return self.packed[self._number(index)]

    def __call__(self, index: int) -> TrainingClip:
        number = self._number(index)
        rng = np.random.default_rng((self.seed, 41, number))
        clip = self.packed[number]
        if clip.num_frames < self.least:
            raise InputError(
                f"expected clips of at least {self.least} frames for windows of this stage, {clip.name} has "
                f"{clip.num_frames}; pack longer clips (geo4d data pack --frames), or leave that data set out"
            )
        clip = clip if self.size is None else resized_clip(clip, self.size)
        return training_clip(clip, self.evidence, rng, holes=self.holes)
