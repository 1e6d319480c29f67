"""Views of a sequence: some of its frames, the middle of its pictures; lazy, nothing is read."""

from dataclasses import replace

import numpy as np

from geo4d.datasets.base import Sequence, Tracks
from geo4d.types import FrameArray, LazyFrames


def select(sequence: Sequence, frames: np.ndarray | slice) -> Sequence:
    """The sequence with only those frames, lazily."""
    chosen = np.arange(sequence.num_frames)[frames]

    def maps(array: FrameArray | None) -> FrameArray | None:
        if array is None:
            return None
        return LazyFrames(
            (len(chosen), *array.shape[1:]), np.dtype(array.dtype), lambda t: array[int(chosen[t])]
        )

    return replace(
        sequence,
        times_s=sequence.times_s[chosen],
        rgb=maps(sequence.rgb),
        depth=maps(sequence.depth),
        dynamic=maps(sequence.dynamic),
        tracks=_select_tracks(sequence.tracks, chosen),
        intrinsics=None if sequence.intrinsics is None else sequence.intrinsics[chosen],
        c2w=None if sequence.c2w is None else sequence.c2w[chosen],
    )


def _select_tracks(tracks: Tracks | None, frames: np.ndarray) -> Tracks | None:
    if tracks is None:
        return None
    return Tracks(tracks.pixels[frames], tracks.depth[frames], tracks.visible[frames])


def centre_crop(sequence: Sequence, size: tuple[int, int]) -> Sequence:
    """The middle (height, width) of frames and maps, lazily; frames and maps must have the same size.

    Raises:
        ValueError: the sequence is smaller, or frames and maps differ in size.
    """
    height, width = sequence.size
    if size[0] > height or size[1] > width:
        raise ValueError(f"expected maps of at least {size}, got {sequence.size}")
    if sequence.rgb is not None and tuple(sequence.rgb.shape[1:3]) != sequence.size:
        raise ValueError(f"expected frames of size {sequence.size}, got {tuple(sequence.rgb.shape[1:3])}")
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    window = (slice(top, top + size[0]), slice(left, left + size[1]))

    def maps(array: FrameArray | None) -> FrameArray | None:
        if array is None:
            return None
        shape = (array.shape[0], *size, *array.shape[3:])
        return LazyFrames(shape, np.dtype(array.dtype), lambda t: np.asarray(array[t])[window])

    tracks = sequence.tracks
    if tracks is not None:
        tracks = replace(tracks, pixels=tracks.pixels - np.array([left, top]))
    intrinsics = None
    if sequence.intrinsics is not None:
        intrinsics = sequence.intrinsics.copy()
        intrinsics[:, 0, 2] -= left
        intrinsics[:, 1, 2] -= top
    return replace(
        sequence,
        size=size,
        rgb=maps(sequence.rgb),
        depth=maps(sequence.depth),
        dynamic=maps(sequence.dynamic),
        tracks=tracks,
        intrinsics=intrinsics,
    )
