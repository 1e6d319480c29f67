"""Pictures of a clip at the sizes that a run asks for again and again, kept on disk so that it is decoded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_CHANNELS = 3


class KeptPictures:
    """All frames of a clip at some sizes, 8 bits per channel; one file for each size, written once and in order.

    A file gets its name when it is complete: what an interrupted run left is written anew. Files are read piece by piece
    and not mapped, so that pages of them do not count as memory of the process.

    Args:
        folder: of the files; those that are complete there are taken as they are.
        sizes: (height, width) of the pictures.
        num_frames: of the clip.
    """

    def __init__(self, folder: Path, sizes: Sequence[tuple[int, int]], num_frames: int) -> None:
        self.sizes, self._folder, self._num_frames = tuple(dict.fromkeys(sizes)), folder, num_frames
        self._added = 0

    @staticmethod
    def num_bytes(sizes: Sequence[tuple[int, int]], num_frames: int) -> int:
        """What they take on disk."""
        return num_frames * sum(_CHANNELS * height * width for height, width in dict.fromkeys(sizes))

    @property
    def complete(self) -> bool:
        """Whether every frame is there at every size."""
        return all(
            self._path(size).is_file()
            and self._path(size).stat().st_size == self.num_bytes([size], self._num_frames)
            for size in self.sizes
        )

    def add(self, pictures: Sequence[np.ndarray]) -> None:
        """The next frame: [H, W, 3] uint8 at every size, in their order.

        Raises:
            ValueError: another number or other sizes of pictures, or one frame too many.
        """
        found = tuple((picture.shape[0], picture.shape[1]) for picture in pictures)
        if found != self.sizes or self._added >= self._num_frames:
            raise ValueError(
                f"expected {self._num_frames} frames of sizes {self.sizes}, got {found} as number {self._added}"
            )
        for size, picture in zip(self.sizes, pictures, strict=True):
            with self._partial(size).open("ab" if self._added else "wb") as file:
                file.write(np.ascontiguousarray(picture, np.uint8).data)
        self._added += 1
        if self._added == self._num_frames:
            for size in self.sizes:
                self._partial(size).replace(self._path(size))

    def read(self, frame: int, size: tuple[int, int]) -> np.ndarray:
        """[H, W, 3] uint8 of a complete store."""
        height, width = size
        count = _CHANNELS * height * width
        values = np.fromfile(self._path(size), np.uint8, count, offset=frame * count)
        return values.reshape(height, width, _CHANNELS)

    def remove(self) -> None:
        """Delete the files."""
        for size in self.sizes:
            self._path(size).unlink(missing_ok=True)
            self._partial(size).unlink(missing_ok=True)

    def _path(self, size: tuple[int, int]) -> Path:
        return self._folder / f"pictures_{size[0]}x{size[1]}.rgb"

    def _partial(self, size: tuple[int, int]) -> Path:
        return self._folder / f".pictures_{size[0]}x{size[1]}.rgb"


@dataclass(frozen=True)
class KeptClip:
    """A clip of which nothing but kept pictures is at hand: what a process needs that predicts some of its windows.

    Attributes:
        pictures: complete.
        times_s: [T] seconds.
        fps: frames per second of the sequence.
    """

    pictures: KeptPictures
    times_s: np.ndarray
    fps: float

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.times_s)

    def read(
        self, frames: Sequence[int] | np.ndarray | Tensor, size: tuple[int, int]
    ) -> Float[Tensor, "V H W 3"]:
        """Frames by their position, colour in [0, 1]: bit for bit what ``Video.read`` gives at this size.

        Args:
            size: (height, width), one that is kept.
        """
        if size not in self.pictures.sizes:
            raise ValueError(f"expected one of the sizes {self.pictures.sizes} that are kept, got {size}")
        pictures = np.stack([self.pictures.read(int(t), size) for t in frames])
        return torch.from_numpy(pictures).float().div_(255)
