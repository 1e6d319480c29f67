"""Shots of frames that are all there at once."""

from collections.abc import Iterable

from torch import Tensor

from geo4d.video.shots import ShotConfig, ShotFinder


def find_shots(frames: Iterable[Tensor], config: ShotConfig | None = None) -> list[tuple[int, int]]:
    """[start, end) of every shot of frames [H, W, 3] in [0, 1]."""
    finder = ShotFinder(config)
    for frame in frames:
        finder.add(frame)
    return finder.shots()
