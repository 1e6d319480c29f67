"""Packed clips in random order for training: by sources, over processes and workers, from an exact position.

Every shard belongs to one consumer in an epoch, so no file is read by two. A consumer is one worker of one process:
number ``rank * workers + worker``. Which clip its sample ``n`` is, is a function of (seed, consumers, consumer, n) alone,
so a position is a count and nothing else has to be kept.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from geo4d.datasets.clips import Clip
from geo4d.datasets.shards import PackedClips, Source
from geo4d.errors import InputError

Kind = Literal["video", "still", "all"]


@dataclass(frozen=True)
class _Part:
    """A source as its consumers see it.

    Attributes:
        source: the data set.
        first: number of its first clip among all.
    """

    source: Source
    first: int

    def clips(
        self, seed: int, tag: int, consumer: int, consumers: int, mix: int
    ) -> Iterator[tuple[int, int]]:
        """(epoch, clip number) for ever, for one consumer; ``mix`` shards at a time are shuffled together."""
        starts = np.cumsum([0, *(len(ranges) for _, ranges in self.source.shards)]) + self.first
        epoch = 0
        while True:
            # All consumers draw the same order of shards; each takes every so many-th.
            mine = np.random.default_rng((seed, 3, tag, epoch)).permutation(len(self.source.shards))[
                consumer::consumers
            ]
            rng = np.random.default_rng((seed, 5, tag, epoch, consumer))
            for first in range(0, len(mine), mix):
                numbers = np.concatenate(
                    [np.arange(starts[shard], starts[shard + 1]) for shard in mine[first : first + mix]]
                )
                for number in rng.permutation(numbers):
                    yield epoch, int(number)
            epoch += 1


class PackedStream(IterableDataset[tuple[int, Clip]]):
    """(clip number, clip) without end, for one process; give it to a ``DataLoader`` with ``batch_size=None``.

    Sources are drawn by their weight (ratio, or frames) for each sample anew.

    Args:
        packed: the clips.
        seed: of all drawing.
        rank, processes: this process and how many there are.
        workers: of the loader, 0 for none; must be what the loader gets.
        mix: shards that are shuffled together.
        kind: sources of videos, of still pictures, or all.
        start: samples that this process has had already.
    Raises:
        InputError: no source of that kind, or fewer shards in one than consumers.
        ValueError: nonsensical counts.
    """

    def __init__(
        self,
        packed: PackedClips,
        *,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
        mix: int = 4,
        kind: Kind = "all",
        start: int = 0,
    ) -> None:
        if not 0 <= rank < processes or workers < 0 or mix < 1 or start < 0:
            raise ValueError(
                f"expected 0 <= rank < processes, workers and start >= 0, mix >= 1, got rank {rank} of {processes}, "
                f"workers {workers}, start {start}, mix {mix}"
            )
        self.packed, self.seed, self.rank, self.processes = packed, seed, rank, processes
        self.workers, self.mix, self.kind, self.start = workers, mix, kind, start
        first = 0
        self._parts: list[_Part] = []
        for source in packed.sources:
            if kind == "all" or source.still == (kind == "still"):
                self._parts.append(_Part(source, first))
            first += source.num_clips
        if not self._parts:
            raise InputError(f"expected a source of kind {kind} among the packed clips, got none")
        consumers = processes * max(workers, 1)
        for part in self._parts:
            if len(part.source.shards) < consumers:
                raise InputError(
                    f"expected at least {consumers} shards of {part.source.name} for {processes} processes with "
                    f"{max(workers, 1)} workers, got {len(part.source.shards)}; pack with a smaller --per-shard or use "
                    "fewer workers"
                )

    def numbers(self, worker: int = 0, start: int = 0) -> Iterator[int]:
        """Clip numbers of one worker, from its sample ``start`` on; reads nothing."""
        consumers = self.processes * max(self.workers, 1)
        consumer = self.rank * max(self.workers, 1) + worker
        weights = np.array([part.source.weight for part in self._parts], np.float64)
        if (weights < 0).any() or weights.sum() <= 0:
            raise InputError(f"expected ratios >= 0 with a positive sum, got {weights.tolist()}")
        bounds = np.cumsum(weights) / weights.sum()
        rng = np.random.default_rng((self.seed, 7, consumers, consumer))
        streams = [
            part.clips(self.seed, tag, consumer, consumers, self.mix) for tag, part in enumerate(self._parts)
        ]
        position = 0
        while True:
            for draw in rng.random(1024):  # in blocks: a million samples are skipped in a second
                chosen = min(int(np.searchsorted(bounds, draw, side="right")), len(streams) - 1)
                _, number = next(streams[chosen])
                if position >= start:
                    yield number
                position += 1

    def __iter__(self) -> Iterator[tuple[int, Clip]]:
        info = get_worker_info()
        if (0 if info is None else info.num_workers) != self.workers:
            raise ValueError(
                f"expected a loader with {self.workers} workers, got {0 if info is None else info.num_workers}"
            )
        worker, turns = (0, 1) if info is None else (info.id, info.num_workers)
        # The loader takes the workers' samples in turn: of `start` samples this one gave every turns-th.
        start = (self.start - worker + turns - 1) // turns
        for number in self.numbers(worker, max(start, 0)):
            yield number, self.packed[number]

    def position(self, samples: int) -> dict[str, Any]:
        """What to keep to go on after ``samples`` samples of this process: JSON values."""
        return {"samples": samples, **self._identity()}

    def resumed(self, position: dict[str, Any]) -> "PackedStream":
        """The stream from a kept position on.

        With several workers the loader asks them in turn from the first again, so a position must be a multiple of the
        number of workers.

        Raises:
            InputError: the position is that of other clips, another seed or another number of processes or workers.
        """
        for name, value in self._identity().items():
            if position.get(name) != value:
                raise InputError(
                    f"expected a position of {name} {value}, got {position.get(name)}; go on with what the run began with"
                )
        samples = int(position["samples"])
        if samples % max(self.workers, 1):
            raise InputError(
                f"expected a position at a multiple of {self.workers} samples, one for each worker, got {samples}"
            )
        return PackedStream(
            self.packed,
            seed=self.seed,
            rank=self.rank,
            processes=self.processes,
            workers=self.workers,
            mix=self.mix,
            kind=self.kind,
            start=samples,
        )

    def _identity(self) -> dict[str, Any]:
        shards = [[source.name, source.ratio, source.frames, source.shards] for source in self.packed.sources]
        return {
            "clips": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
            "seed": self.seed,
            "processes": self.processes,
            "workers": self.workers,
            "mix": self.mix,
            "kind": self.kind,
        }
