"""The video that a result was made from, found again and compared."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import InputError
from geo4d.types import LazyFrames
from geo4d.video.io import Video, reopen

log = logging.getLogger(__name__)


def open_source(source: Mapping[str, Any], result: Path, num_frames: int) -> Video | None:
    """The video or pictures that a result was made from, opened as they were read then.

    Args:
        source: ``source`` of the manifest.
        result: folder of the result; the source may have moved along with it.
        num_frames: how many frames must be there.
    Returns:
        None where the source is gone, or was an array.
    Raises:
        InputError: what lies there now has another content than the source had.
    """
    place = _find_source(source, result)
    if place is None:
        return None
    video = reopen(place, source.get("reading", {}), num_frames)
    if video.sha256() != source.get("sha256"):
        video.close()
        raise InputError(f"{place} is not the source of {result} any more: its content has changed")
    return video


class SourcePictures:
    """Pictures of a result's frames, [T, H, W, 3] float32 in [0, 1] at the full size of the source.

    The source is opened, and its hash compared, on first use. Sizes share one decoder: read at two sizes one after the
    other, a frame is decoded once.

    Raises:
        InputError: on first use, when the source is gone or has another content.
    """

    def __init__(self, source: Mapping[str, Any], result: Path, frames: np.ndarray) -> None:
        self._source, self._result, self._frames = source, result, frames
        self._opened: Video | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, H, W, 3]; upright and undistorted, as the run saw the source before it was scaled."""
        return (len(self._frames), *self._video().size, 3)

    @property
    def dtype(self) -> np.dtype:
        """Of what an index gives."""
        return np.dtype(np.float32)

    def __getitem__(self, key: Any, /) -> np.ndarray:
        height, width = self._video().size
        return self.at((height, width))[key]

    def at(self, size: tuple[int, int]) -> LazyFrames:
        """The pictures scaled to (height, width)."""

        def compute(t: int) -> np.ndarray:
            return self._video().read([int(self._frames[t])], size)[0].numpy()

        return LazyFrames((len(self._frames), *size, 3), np.dtype(np.float32), compute)

    def _video(self) -> Video:
        if self._opened is None:
            self._opened = open_source(self._source, self._result, int(self._frames.max()) + 1)
            if self._opened is None:
                raise InputError(
                    f"the source {self._source.get('path')} of {self._result} is not there any more"
                )
        return self._opened


def source_pictures(
    source: Mapping[str, Any], result: Path, frames: np.ndarray, *, tell: bool = True
) -> SourcePictures | None:
    """Pictures read again from the source, or None where it is gone.

    Args:
        source: ``source`` of the manifest.
        result: folder of the result; the source may have moved along with it.
        frames: numbers in the source.
        tell: warn where the source is gone, since the result then has no colour.
    """
    if _find_source(source, result) is None:
        if tell:
            log.warning("the source %s is not there any more; the result has no colour", source.get("path"))
        return None
    return SourcePictures(source, result, frames)


def _find_source(source: Mapping[str, Any], result: Path) -> Path | None:
    candidates = [Path(source["path"])] if source.get("path") else []
    if source.get("relative_path"):
        candidates.append(result / source["relative_path"])
    return next((path for path in candidates if path.exists()), None)
