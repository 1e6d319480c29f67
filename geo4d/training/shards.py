"""Packed clips as a source of training clips: evidence that was packed with them, or simulated when they are read."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from geo4d.datasets.clips import Clip
from geo4d.datasets.shards import PackedClips, ShardWriter
from geo4d.errors import InputError
from geo4d.training.data import ClipSource, TrainingClip, ordered_clips
from geo4d.training.evidence import EvidenceConfig, simulate_evidence

EVIDENCE = "evidence.safetensors"
"""Member of a packed clip with the fields ``evidence_*`` of a ``TrainingClip``; older shards call them ``prior_*``."""


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
        times_s=np.arange(len(clip.rgb), dtype=float),
        c2w=clip.c2w.double().numpy(),
        extras={EVIDENCE: save(evidence)},
    )


def training_clip(clip: Clip, evidence: EvidenceConfig, rng: np.random.Generator) -> TrainingClip:
    """A clip with evidence as it would look at inference: that which was packed with it, else simulated.

    Args:
        evidence: how evidence is simulated.
        rng: of the simulation.
    Raises:
        InputError: no pose in a frame, or pixels of unknown depth: today's stages take what is not finite for sky.
    """
    if clip.c2w is None or not np.isfinite(clip.c2w).all():
        raise InputError(
            f"expected a pose for every frame of {clip.name} to train with evidence from motion, got none"
        )
    unknown = float(np.isnan(clip.depth).mean())
    if unknown:
        raise InputError(
            f"expected depth or sky in every pixel of {clip.name}, {unknown:.2%} are unknown; the training stages "
            "of this version take them for sky and would learn it"
        )
    rgb, depth = torch.from_numpy(clip.rgb), torch.from_numpy(clip.depth)
    intrinsics, c2w = torch.from_numpy(clip.intrinsics).float(), torch.from_numpy(clip.c2w).float()
    if EVIDENCE in clip.extras:
        stored = load(clip.extras[EVIDENCE])
        # Shards that were packed before name the same arrays prior_*.
        known = {re.sub("^prior_", "evidence_", name): value for name, value in stored.items()}
        wanted = {field.name for field in fields(TrainingClip) if field.name.startswith("evidence_")}
        if set(known) != wanted:
            raise InputError(
                f"expected {', '.join(sorted(wanted))} in {EVIDENCE} of {clip.name}, got {sorted(stored)}"
            )
    else:
        found = simulate_evidence(rgb.float() / 255, depth, intrinsics, c2w, evidence, rng)
        known = {
            "evidence_disparity": found.disparity.clamp(max=6e4).half(),
            "evidence_confidence": found.confidence.half(),
            "evidence_intrinsics": found.intrinsics,
            "evidence_c2w": found.c2w,
            "evidence_trust": found.trust,
        }
    return TrainingClip(rgb=rgb, depth=depth.half(), intrinsics=intrinsics, c2w=c2w, **known)


class ShardSource:
    """A ``ClipSource`` over packed clips; clip numbers beyond the end start again.

    Asking for a clip raises ``InputError`` where it cannot be read, lacks a pose, or has pixels of unknown depth.

    Args:
        folder: of the packed clips, or its URL.
        seed: of simulated evidence, for clips packed without; clip ``i`` gets the same every time it is read.
    Raises:
        InputError: no packed clips, those of another version, or a shard is missing or cut short.
    """

    def __init__(self, folder: Path | str, seed: int = 0) -> None:
        self.packed, self.seed, self.evidence = PackedClips(folder), seed, EvidenceConfig()

    def __len__(self) -> int:
        return len(self.packed)

    def __call__(self, index: int) -> TrainingClip:
        number = index % len(self.packed)
        rng = np.random.default_rng((self.seed, 41, number))
        return training_clip(self.packed[number], self.evidence, rng)
