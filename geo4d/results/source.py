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


def source_frames(
    source: Mapping[str, Any], result: Path, frames: np.ndarray, size: tuple[int, int]
) -> LazyFrames | None:
    """Colour at the size of the maps, read again from the source; its hash is checked on first use."""
    if _find_source(source, result) is None:
        log.warning("the source %s is not there any more; the result has no colour", source.get("path"))
        return None
    opened: list[Video] = []

    def compute(t: int) -> np.ndarray:
        if not opened:
            video = open_source(source, result, int(frames.max()) + 1)
            if video is None:
                raise InputError(f"the source {source.get('path')} of {result} is not there any more")
            opened.append(video)
        return opened[0].read([int(frames[t])], size)[0].numpy()

    return LazyFrames((len(frames), *size, 3), np.dtype(np.float32), compute)


def _find_source(source: Mapping[str, Any], result: Path) -> Path | None:
    candidates = [Path(source["path"])] if source.get("path") else []
    if source.get("relative_path"):
        candidates.append(result / source["relative_path"])
    return next((path for path in candidates if path.exists()), None)
