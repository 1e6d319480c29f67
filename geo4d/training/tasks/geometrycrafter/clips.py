"""Clips for GeometryCrafter's stages, in an order that is a function of (seed, sample): generated, or packed."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader

from geo4d.datasets.clips import Clip
from geo4d.datasets.shards import PackedClips
from geo4d.datasets.stream import Kind, PackedStream
from geo4d.errors import InputError
from geo4d.training.data import EveryNth, ReplayPlan
from geo4d.training.sources import SyntheticSource
from geo4d.training.tasks.geometrycrafter.priors import FramePrior, PriorOfClip


@runtime_checkable
class ClipOrder(Protocol):
    """(sample number, clip, its prior) of one process, from an optimiser step on."""

    def __call__(
        self, first_step: int, batch: int, rank: int, processes: int
    ) -> Iterator[tuple[int, Clip, FramePrior | None]]: ...


def render_clip(source: SyntheticSource, number: int) -> Clip:
    """Clip ``number`` of the generator."""
    found = source.clip(number)
    return Clip(
        name=f"{source.seed}-{number}",
        dataset="synthetic",
        rgb=found.rgb.numpy(),
        depth=found.depth.numpy(),
        intrinsics=found.intrinsics.double().numpy(),
        times_s=np.asarray(found.times_s, np.float64),
        c2w=found.c2w.double().numpy(),
    )


@dataclass(frozen=True)
class GeneratedOrder:
    """Clips rendered as they are needed, each shown a few times.

    Attributes:
        source: the generator.
        plan: which clip each sample is.
        prior: None for stages that need none.
    """

    source: SyntheticSource
    plan: ReplayPlan
    prior: PriorOfClip | None = None

    def __call__(
        self, first_step: int, batch: int, rank: int, processes: int
    ) -> Iterator[tuple[int, Clip, FramePrior | None]]:
        mine = EveryNth(batch, batch // processes, rank)
        kept: dict[int, tuple[Clip, FramePrior | None]] = {}
        start = first_step * batch
        for sample, number in enumerate(self.plan.iter_clips(start), start):
            if not mine(sample):
                continue
            if number not in kept:
                clip = render_clip(self.source, number)
                kept[number] = clip, None if self.prior is None else self.prior(clip)
                oldest = number - (self.plan.uses + 1) * self.plan.chunk
                for expired in [key for key in kept if key < oldest]:
                    del kept[expired]
            yield sample, *kept[number]


@dataclass(frozen=True)
class PackedOrder:
    """Packed clips: sources by frames or by their ratio, every process its own shards.

    Attributes:
        folder: of the shards, or URL.
        kind: ``video`` leaves sets of single pictures out.
        seed: of the order.
        workers: processes that read.
        prior: None for stages that need none.
    """

    folder: str
    kind: Kind
    seed: int
    workers: int = 0
    prior: PriorOfClip | None = None

    def __call__(
        self, first_step: int, batch: int, rank: int, processes: int
    ) -> Iterator[tuple[int, Clip, FramePrior | None]]:
        share = batch // processes
        if share * first_step % max(self.workers, 1):
            raise InputError(
                f"expected to go on at a multiple of {self.workers} samples per process, one for each worker, got "
                f"{share * first_step}; resume with --workers 0"
            )
        stream = PackedStream(
            PackedClips(self.folder),
            seed=self.seed,
            rank=rank,
            processes=processes,
            workers=self.workers,
            kind=self.kind,
            start=share * first_step,
        )
        context = "spawn" if self.workers else None
        loader = DataLoader(
            stream, batch_size=None, num_workers=self.workers, multiprocessing_context=context
        )
        for position, (_, clip) in enumerate(loader, share * first_step):
            sample = position // share * batch + rank * share + position % share
            yield sample, clip, None if self.prior is None else self.prior(clip)


def clips_identity(folder: Path | str) -> str:
    """Hash over what the index of packed clips says."""
    packed = PackedClips(folder)
    rows = [[source.name, source.frames, source.shards] for source in packed.sources]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def has_kind(folder: Path | str, kind: Kind) -> bool:
    """Whether packed clips hold a source of that kind."""
    return any(kind == "all" or source.still == (kind == "still") for source in PackedClips(folder).sources)


def back_and_forth(num_frames: int, count: int) -> torch.Tensor:
    """Frames 0, 1, ..., last, last - 1, ..., 0, 1, ...: ``count`` of them, for a clip that is too short."""
    if num_frames == 1:
        return torch.zeros(count, dtype=torch.long)
    period = 2 * (num_frames - 1)
    position = torch.arange(count) % period
    return torch.minimum(position, period - position)
