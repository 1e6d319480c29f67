"""Clips for training: a replayed stream from any source that gives clip ``i`` for ``i``, and augmented batches.

Nothing here keeps a random state. Which clips make up step ``s``, and how they are cut and augmented, is a function of
(seed, s); clip ``i`` is a function of (seed, i). So a run that is resumed at any step, or spread over any number of
processes, sees the same batches.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

USUAL_FPS = 24.0
"""Frames per second where a clip does not say when its frames were taken."""


def _none() -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class TrainingClip:
    """One clip with true geometry and evidence as it would look at inference. Small types, to keep thousands.

    Attributes:
        rgb: colour.
        depth: z-depth, +inf in the sky, NaN where unknown.
        intrinsics: pixels of ``rgb``.
        c2w: camera to world.
        evidence_disparity: of the plane sweep, 1 / unit of ``evidence_c2w``.
        evidence_confidence: in [0, 1].
        evidence_intrinsics: pixels of ``rgb``.
        evidence_c2w: camera to world as motion estimation would give it.
        evidence_trust: confidence in the cameras, in [0, 1].
        times_s: seconds, increasing; where none are given, ``USUAL_FPS`` frames per second.
    """

    rgb: UInt8[Tensor, "T H W 3"]
    depth: Float[Tensor, "T H W"]
    intrinsics: Float[Tensor, "T 3 3"]
    c2w: Float[Tensor, "T 4 4"]
    evidence_disparity: Float[Tensor, "T h w"]
    evidence_confidence: Float[Tensor, "T h w"]
    evidence_intrinsics: Float[Tensor, "T 3 3"]
    evidence_c2w: Float[Tensor, "T 4 4"]
    evidence_trust: Float[Tensor, " T"]
    times_s: Float[Tensor, " T"] = field(default_factory=_none)

    def __post_init__(self) -> None:
        if self.times_s.numel() == 0:
            object.__setattr__(self, "times_s", torch.arange(self.rgb.shape[0]) / USUAL_FPS)

    def select(self, frames: Tensor) -> "TrainingClip":
        """Some of the frames."""
        return TrainingClip(**{name: value[frames] for name, value in vars(self).items()})


ClipSource = Callable[[int], TrainingClip]
"""Clip number ``i``, always the same for the same ``i``. Must be picklable to run in worker processes."""


@dataclass(frozen=True)
class ReplayPlan:
    """Which clips each sample uses: every clip ``uses`` times, spread over ``uses`` rounds, shuffled.

    Clips come in chunks. Round ``r`` shows all clips of the chunks ``r - uses + 1 .. r`` once each, in random order;
    so new clips arrive at an even rate and at most ``uses * chunk`` are kept.

    Attributes:
        seed: of the shuffling.
        chunk: clips per chunk.
        uses: how often each clip is shown.
        first: number of the first clip.
    """

    seed: int
    chunk: int = 256
    uses: int = 4
    first: int = 0

    def iter_clips(self, start_sample: int = 0) -> Iterator[int]:
        """Clip number of each sample, from ``start_sample`` on, for ever."""
        skipped, round_index = 0, 0
        while True:
            chunks = min(round_index + 1, self.uses)
            size = chunks * self.chunk
            if skipped + size > start_sample:
                order = np.random.default_rng((self.seed, 17, round_index)).permutation(size)
                oldest = self.first + (round_index - chunks + 1) * self.chunk
                for position in range(max(0, start_sample - skipped), size):
                    yield oldest + int(order[position])
            skipped += size
            round_index += 1


class _FirstUses(IterableDataset[dict[str, Any]]):
    """Clips in the order in which a part of the plan first needs them; what the worker process runs."""

    def __init__(
        self, source: ClipSource, plan: ReplayPlan, start: int, part: Callable[[int], bool], num_samples: int
    ) -> None:
        self.source, self.plan, self.start, self.part = source, plan, start, part
        self.num_samples = num_samples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Workers (if several) take turns; DataLoader collects them in the same turns.
        info = torch.utils.data.get_worker_info()
        share, turn = (1, 0) if info is None else (info.num_workers, info.id)
        for position, clip in enumerate(first_uses(self.plan, self.start, self.part, self.num_samples)):
            if position % share == turn:
                yield {"clip": clip, **vars(self.source(clip))}


def first_uses(plan: ReplayPlan, start: int, part: Callable[[int], bool], num_samples: int) -> Iterator[int]:
    """Clip numbers, each once, in the order in which the samples ``start .. start + num_samples`` with ``part`` need
    them.
    """
    seen: set[int] = set()
    newest = 0
    for sample, clip in enumerate(plan.iter_clips(start), start):
        if sample >= start + num_samples:
            return
        if not part(sample) or clip in seen:
            continue
        seen.add(clip)
        newest = max(newest, clip)
        yield clip
        if len(seen) > 4 * plan.uses * plan.chunk:
            seen = {kept for kept in seen if kept > newest - (plan.uses + 1) * plan.chunk}


class ClipStream:
    """Samples of a replayed plan, one after the other, for one process of a training run.

    Args:
        source: gives the clips.
        plan: which clips the samples use.
        start: first sample.
        num_samples: how many samples follow, over all processes.
        part: which samples this process needs.
        num_workers: processes that make clips; 0 makes them here.
        niceness: added to the workers' priority value.
    """

    def __init__(
        self,
        source: ClipSource,
        plan: ReplayPlan,
        *,
        start: int = 0,
        num_samples: int = 1 << 62,
        part: Callable[[int], bool] | None = None,
        num_workers: int = 0,
        niceness: int = 5,
    ) -> None:
        self.plan = plan
        self._part = part or _every
        self._cache: dict[int, TrainingClip] = {}
        self._plan_iterator = enumerate(plan.iter_clips(start), start)
        dataset = _FirstUses(source, plan, start, self._part, num_samples)
        loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=max(2, plan.chunk // num_workers) if num_workers else None,
            worker_init_fn=_WorkerInit(niceness) if num_workers else None,
            multiprocessing_context="spawn" if num_workers else None,
        )
        self._fresh = iter(loader)

    def __iter__(self) -> Iterator[tuple[int, TrainingClip]]:
        """(sample number, clip) of this process's samples."""
        for sample, clip in self._plan_iterator:
            if self._part(sample):
                yield sample, self._get(clip)

    def _get(self, clip: int) -> TrainingClip:
        while clip not in self._cache:
            item = dict(next(self._fresh))
            number = int(item.pop("clip"))
            # A copy of our own, so that the worker's shared memory is free again.
            self._cache[number] = TrainingClip(**{name: value.clone() for name, value in item.items()})
            oldest = number - (self.plan.uses + 1) * self.plan.chunk
            for expired in [kept for kept in self._cache if kept < oldest]:
                del self._cache[expired]
        return self._cache[clip]


def _every(sample: int) -> bool:
    return True


class _Listed(IterableDataset[dict[str, Any]]):
    def __init__(self, source: ClipSource, numbers: Sequence[int]) -> None:
        self.source, self.numbers = source, numbers

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = torch.utils.data.get_worker_info()
        share, turn = (1, 0) if info is None else (info.num_workers, info.id)
        for number in self.numbers[turn::share]:
            yield vars(self.source(number))


def ordered_clips(source: ClipSource, numbers: Sequence[int], num_workers: int = 0) -> Iterator[TrainingClip]:
    """The given clips in order, made by worker processes if there are any."""
    loader = DataLoader(
        _Listed(source, numbers),
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=_WorkerInit(5) if num_workers else None,
        multiprocessing_context="spawn" if num_workers else None,
    )
    for item in loader:
        yield TrainingClip(**{name: value.clone() for name, value in item.items()})


@dataclass(frozen=True)
class EveryNth:
    """Samples of one process: batches are cut into contiguous shares."""

    batch: int
    share: int
    rank: int

    def __call__(self, sample: int) -> bool:
        return sample % self.batch // self.share == self.rank


@dataclass(frozen=True)
class _WorkerInit:
    niceness: int

    def __call__(self, worker: int) -> None:
        os.nice(self.niceness)
        torch.set_num_threads(1)


@dataclass(frozen=True)
class Batch:
    """Windows that a stage trains on.

    Attributes:
        rgb: in [-1, 1].
        depth: z-depth, +inf in the sky, NaN where unknown.
        intrinsics: pixels of ``rgb``.
        c2w: camera to world.
        frames: position of each frame, from 0 for the first.
        evidence_*: as in ``TrainingClip``.
        samples: sample numbers; with the seed they determine all noise.
        fps: frames per second of each window, its stride counted in; ``USUAL_FPS`` where nothing is known.
    """

    rgb: Float[Tensor, "B T 3 H W"]
    depth: Float[Tensor, "B T H W"]
    intrinsics: Float[Tensor, "B T 3 3"]
    c2w: Float[Tensor, "B T 4 4"]
    frames: Float[Tensor, "B T"]
    evidence_disparity: Float[Tensor, "B T h w"]
    evidence_confidence: Float[Tensor, "B T h w"]
    evidence_intrinsics: Float[Tensor, "B T 3 3"]
    evidence_c2w: Float[Tensor, "B T 4 4"]
    evidence_trust: Float[Tensor, "B T"]
    samples: Int[Tensor, " B"]
    fps: Float[Tensor, " B"] = field(default_factory=_none)

    def __post_init__(self) -> None:
        if self.fps.numel() == 0:
            object.__setattr__(self, "fps", torch.full((self.rgb.shape[0],), USUAL_FPS))

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device; the sample numbers stay with the host, which draws by them."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "samples"}
        return Batch(**moved, samples=self.samples.cpu())

    def describe(self) -> str:
        """For messages: the sample numbers."""
        return f"samples {', '.join(map(str, self.samples.tolist()))}"

    def split(self, parts: int) -> list["Batch"]:
        """Equal parts, in order.

        Raises:
            ValueError: the batch cannot be cut evenly.
        """
        size = self.rgb.shape[0]
        if size % parts:
            raise ValueError(f"expected a batch that divides into {parts} parts, got {size} windows")
        share = size // parts
        return [
            Batch(**{f.name: getattr(self, f.name)[start : start + share] for f in fields(self)})
            for start in range(0, size, share)
        ]


def stack_clips(clips: list[TrainingClip], frames: list[Tensor], samples: list[int]) -> Batch:
    """Windows of equal length and size, stacked."""
    chosen = [clip.select(index) for clip, index in zip(clips, frames, strict=True)]
    stacked = {name: torch.stack([getattr(clip, name) for clip in chosen]) for name in vars(chosen[0])}
    rgb = stacked.pop("rgb").movedim(-1, 2).float() / 127.5 - 1
    times = stacked.pop("times_s").float()
    # A window of one frame has no rate.
    lasted = (times[:, -1] - times[:, 0]).abs()  # windows may run backwards
    fps = torch.where(lasted > 0, (times.shape[1] - 1) / lasted.clamp(min=1e-6), USUAL_FPS)
    order = torch.stack([(index - index[0]).float() for index in frames])
    return Batch(
        rgb=rgb,
        frames=order,
        samples=torch.tensor(samples),
        fps=fps,
        **{name: value.float() for name, value in stacked.items()},
    )
