"""The one bridge from a ``Sequence`` to what is packed and trained on: clips of bounded length at one size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from geo4d.datasets.base import Sequence
from geo4d.errors import InputError
from geo4d.types import FrameArray, ScaleKind

MOST_FRAMES = 150
"""Frames of one clip at most. Source: GeometryCrafter, supplement: clips of at most 150 frames without overlap."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A piece of a sequence, in memory.

    Attributes:
        name: of the sequence and the first frame in it.
        dataset: name of the reader.
        rgb: [T, H, W, 3] uint8.
        depth: [T, H, W] float32 z-depth, NaN where unknown, +inf in the sky.
        intrinsics: [T, 3, 3] float64 in pixels, centres at +0.5.
        times_s: [T] seconds, increasing.
        c2w: [T, 4, 4] float64, NaN for a frame without a pose; None for a data set without poses.
        dynamic: [T, H, W] bool, or None.
        scale_kind: ``metric`` or ``scale``.
        still: the frames are no video.
        extras: further members of the packed clip by their names, such as evidence made ahead of time.
    """

    name: str
    dataset: str
    rgb: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    times_s: np.ndarray
    c2w: np.ndarray | None = None
    dynamic: np.ndarray | None = None
    scale_kind: ScaleKind = "metric"
    still: bool = False
    extras: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.times_s)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        return int(self.rgb.shape[1]), int(self.rgb.shape[2])


@dataclass(frozen=True)
class Cover:
    """Resize until a size is covered, then cut its middle out.

    Attributes:
        source: (height, width) before.
        target: (height, width) after.
        zoom: at least 1; resize by so much more than needed, which narrows the field of view.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    zoom: float = 1.0

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) between the two steps: at least ``target``, proportions kept to a pixel."""
        scale = self.zoom * max(self.target[0] / self.source[0], self.target[1] / self.source[1])
        height, width = (max(t, round(s * scale)) for s, t in zip(self.source, self.target, strict=True))
        return height, width

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of what is cut out."""
        return (self.resized[0] - self.target[0]) // 2, (self.resized[1] - self.target[1]) // 2

    def picture(self, rgb: np.ndarray) -> np.ndarray:
        """[h, w, 3] of any size with the proportions of ``source`` -> [H, W, 3]."""
        import cv2

        height, width = self.resized
        shrinks = height < rgb.shape[0]
        resized = cv2.resize(
            rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        return self._cut(resized)

    def map(self, values: np.ndarray) -> np.ndarray:
        """[h, w] of ``source`` -> [H, W]; the nearest pixel's value, never a mixture."""
        import cv2

        height, width = self.resized
        return self._cut(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))

    def intrinsics(self, matrices: np.ndarray) -> np.ndarray:
        """[T, 3, 3] in pixels of ``source`` -> in pixels of ``target``."""
        result = np.array(matrices, np.float64)
        result[:, 0] *= self.resized[1] / self.source[1]
        result[:, 1] *= self.resized[0] / self.source[0]
        result[:, 0, 2] -= self.corner[1]
        result[:, 1, 2] -= self.corner[0]
        return result

    def _cut(self, values: np.ndarray) -> np.ndarray:
        top, left = self.corner
        return np.ascontiguousarray(values[top : top + self.target[0], left : left + self.target[1]])


def cut_clips(
    sequence: Sequence, *, length: int = MOST_FRAMES, size: tuple[int, int] | None = None, still: bool = False
) -> Iterator[Clip]:
    """A sequence as clips of at most ``length`` frames, one after the other, without overlap.

    Args:
        size: (height, width) of the clips, by ``Cover``; None keeps that of the maps.
        still: the frames are no video.
    Raises:
        InputError: colour, depth or intrinsics are missing, or colour and depth differ in proportions.
    """
    rgb, depth, intrinsics = _needed(sequence)
    cover = Cover(sequence.size, size or sequence.size)
    for first in range(0, sequence.num_frames, length):
        frames = range(first, min(first + length, sequence.num_frames))
        dynamic = sequence.dynamic
        yield Clip(
            name=f"{sequence.name}@{first}",
            dataset=sequence.dataset,
            rgb=np.stack([cover.picture(_as_uint8(np.asarray(rgb[t]))) for t in frames]),
            depth=np.stack([cover.map(np.asarray(depth[t], np.float32)) for t in frames]),
            intrinsics=cover.intrinsics(intrinsics[first : frames.stop]),
            times_s=np.asarray(sequence.times_s[first : frames.stop], np.float64),
            c2w=None if sequence.c2w is None else np.asarray(sequence.c2w[first : frames.stop], np.float64),
            dynamic=None
            if dynamic is None
            else np.stack([cover.map(np.asarray(dynamic[t], np.uint8)) > 0 for t in frames]),
            scale_kind=sequence.scale_kind,
            still=still,
        )


def _needed(sequence: Sequence) -> tuple[FrameArray, FrameArray, np.ndarray]:
    absent = [name for name in ("rgb", "depth", "intrinsics") if getattr(sequence, name) is None]
    if absent or sequence.rgb is None or sequence.depth is None or sequence.intrinsics is None:
        raise InputError(
            f"expected pictures, depth and intrinsics to train on in {sequence.dataset} sequence {sequence.name}, "
            f"without {', '.join(absent)}"
        )
    height, width = sequence.rgb.shape[1:3]
    if abs(height / width * sequence.size[1] / sequence.size[0] - 1) > 0.02:
        raise InputError(
            f"expected pictures with the proportions of the depth maps {sequence.size} in {sequence.name}, "
            f"got {(height, width)}"
        )
    return sequence.rgb, sequence.depth, sequence.intrinsics


def _as_uint8(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.round(image * 255).clip(0, 255).astype(np.uint8)
