"""Windows cut from clips: size, field of view, length and frames, all functions of (seed, sample or step)."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.datasets.clips import Clip, Cover
from geo4d.training.tasks.geometrycrafter.clips import ClipOrder, back_and_forth
from geo4d.training.tasks.geometrycrafter.priors import FramePrior


@dataclass(frozen=True)
class Windows:
    """Windows of one step: equally long and large.

    Attributes:
        rgb: in [-1, 1].
        depth: z-depth; NaN unknown, +inf in the sky.
        intrinsics: pixels of ``rgb``.
        prior_depth, prior_intrinsics: of the per-frame prior, NaN where it does not believe itself; empty (no frames) for
            stages without.
        samples: sample numbers; with the seed they determine all noise.
        names: of the clips.
    """

    rgb: Float[Tensor, "B T 3 H W"]
    depth: Float[Tensor, "B T H W"]
    intrinsics: Float[Tensor, "B T 3 3"]
    prior_depth: Float[Tensor, "B P H W"]
    prior_intrinsics: Float[Tensor, "B P 3 3"]
    samples: Int[Tensor, " B"]
    names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames T of each window."""
        return self.rgb.shape[1]

    def to(self, device: torch.device | str) -> "Windows":
        """The same on another device; the sample numbers stay with the host, which draws by them."""
        stay = ("names", "samples")
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in stay}
        return replace(self, **moved)

    def split(self, parts: int) -> list["Windows"]:
        """Equal parts, in order.

        Raises:
            ValueError: the windows cannot be cut evenly.
        """
        if len(self.names) % parts:
            raise ValueError(
                f"expected a batch that divides into {parts} parts, got {len(self.names)} windows"
            )
        share = len(self.names) // parts
        return [
            Windows(**{f.name: getattr(self, f.name)[start : start + share] for f in fields(self)})
            for start in range(0, len(self.names), share)
        ]

    def describe(self) -> str:
        """For messages: which clips."""
        pairs = zip(self.samples.tolist(), self.names, strict=True)
        return f"{self.num_frames} frames of " + ", ".join(
            f"{name} (sample {sample})" for sample, name in pairs
        )


@dataclass(frozen=True)
class WindowCut:
    """How windows are cut.

    Attributes:
        size: (height, width), multiples of 64.
        frames: fewest and most frames of a window; the number is drawn anew for every step.
        zoom: most that a clip is enlarged beyond covering ``size``, drawn anew for every sample: other fields of view.
        seed: of all draws.
    """

    size: tuple[int, int] = (320, 640)
    frames: tuple[int, int] = (1, 1)
    zoom: float = 1.5
    seed: int = 0

    def length(self, step: int) -> int:
        """How many frames all windows of a step have: drawn evenly from ``frames``, both ends included."""
        fewest, most = self.frames
        return int(np.random.default_rng((self.seed, 31, step)).integers(fewest, most + 1))

    def window(self, clip: Clip, prior: FramePrior | None, sample: int, count: int) -> Windows:
        """``count`` consecutive frames at a random place; a shorter clip is played back and forth."""
        rng = np.random.default_rng((self.seed, 37, sample))
        zoom = float(np.exp(rng.uniform(0, np.log(self.zoom))))
        longest = min(count, clip.num_frames)
        first = int(rng.integers(clip.num_frames - longest + 1))
        frames = (first + back_and_forth(longest, count)).numpy()
        return cut_window(clip, prior, frames, self.size, zoom, sample)


def cut_window(
    clip: Clip, prior: FramePrior | None, frames: np.ndarray, size: tuple[int, int], zoom: float, sample: int
) -> Windows:
    """One window of given frames: resized until ``zoom`` times ``size`` is covered, then the middle."""
    cover = Cover(clip.size, size, zoom)
    rgb = torch.from_numpy(np.stack([cover.picture(clip.rgb[t]) for t in frames]))
    depth = torch.from_numpy(np.stack([cover.map(clip.depth[t]) for t in frames])).float()
    prior_depth, prior_intrinsics = depth[:0], torch.zeros(0, 3, 3)
    if prior is not None:
        prior_depth = torch.from_numpy(np.stack([cover.map(prior.depth[t]) for t in frames])).float()
        prior_intrinsics = torch.from_numpy(cover.intrinsics(prior.intrinsics[frames])).float()
    return Windows(
        rgb=rgb.movedim(-1, 1).float()[None] / 127.5 - 1,
        depth=depth[None],
        intrinsics=torch.from_numpy(cover.intrinsics(clip.intrinsics[frames])).float()[None],
        prior_depth=prior_depth[None],
        prior_intrinsics=prior_intrinsics[None],
        samples=torch.tensor([sample]),
        names=(f"{clip.dataset} {clip.name}",),
    )


def join_windows(windows: list[Windows]) -> Windows:
    """Windows of one length and size as one batch."""
    tensors = {
        f.name: torch.cat([getattr(window, f.name) for window in windows])
        for f in fields(Windows)
        if f.name != "names"
    }
    return Windows(**tensors, names=tuple(name for window in windows for name in window.names))


@dataclass(frozen=True)
class WindowBatches:
    """A ``BatchSource`` of the loop.

    Attributes:
        order: gives the clips.
        cut: cuts them.
        batch: windows per step, over all processes.
    """

    order: ClipOrder
    cut: WindowCut
    batch: int

    def __call__(self, first_step: int, rank: int, processes: int) -> Iterator[Windows]:
        share = self.batch // processes
        waiting: list[Windows] = []
        for sample, clip, prior in self.order(first_step, self.batch, rank, processes):
            count = self.cut.length(sample // self.batch)
            waiting.append(self.cut.window(clip, prior, sample, count))
            if len(waiting) == share:
                yield join_windows(waiting)
                waiting = []
