"""Tracks of SpaTracker from files, as the track script of GeometryCrafter's authors writes them; neither is needed here.

A folder holds one file for each window of frames, ``NNNNN.npz`` with the number of its first frame, with

- ``tracks`` [V, N, 2]: x and y in pixels of the tracked pictures, edges at 0 and at their size;
- ``visible`` [V, N]: bool, or a number that is 0 where a point is hidden;
- ``query_time`` [N]: the frame of the window in which each point was looked for.

Source: ``sfm/run_track.py`` of GeometryCrafter. SpaTracker is under CC BY-NC 4.0: it is for users to install, for
non-commercial use.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from geo4d.errors import InputError
from geo4d.tracks.types import Tracks
from geo4d.tracks.windows import Piece, join_pieces

_KEYS = ("tracks", "visible", "query_time")

_EXPECTED = "one NNNNN.npz for each window, with tracks [V, N, 2], visible [V, N] and query_time [N]"

_MOST_OUTSIDE = 0.5
"""Share of visible points outside the picture above which the size must be wrong: a tracker keeps few of them."""


def load_spatracker(
    folder: str | Path, num_frames: int, size: tuple[int, int], picture_size: tuple[int, int] | None = None
) -> Tracks:
    """Tracks of all windows of a folder; those of different windows stay separate, the frames they share tie them.

    Args:
        num_frames: of the video; windows count in its frames.
        size: (height, width) of the pictures that the result counts pixels in.
        picture_size: (height, width) of the pictures that were tracked; None: ``size``.
    Raises:
        InputError: no such files, files of another kind, or tracks of another video or size.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not files:
        raise InputError(f"expected a folder of tracks at {folder}: {_EXPECTED}; found none")
    tracked = picture_size or size
    scale = np.array([size[1] / tracked[1], size[0] / tracked[0]], np.float32)
    pieces: list[Piece] = []
    count = seen_points = outside_points = 0
    for path in files:
        start, xy, visible = _read(path)
        if start + len(xy) > num_frames:
            raise InputError(
                f"{path} holds frames {start} to {start + len(xy) - 1}, but the video has {num_frames}; "
                "tracks must be made on the frames that the result was made from"
            )
        inside = ((xy >= 0) & (xy < [tracked[1], tracked[0]])).all(-1)
        seen_points += int(visible.sum())
        outside_points += int((visible & ~inside).sum())
        seen = (visible & inside).T
        seen &= (seen.sum(1) >= 2)[:, None]
        track, frame = seen.nonzero()
        pieces.append((track + count, frame + start, xy.transpose(1, 0, 2)[seen] * scale))
        count += xy.shape[1]
    if outside_points > _MOST_OUTSIDE * seen_points:
        raise InputError(
            f"{folder}: {outside_points} of {seen_points} points lie outside pictures of {tracked[1]} x {tracked[0]} "
            "pixels; say by --track-size WIDTH HEIGHT in which size they were tracked"
        )
    return join_pieces(pieces, num_frames, size)


def _read(path: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """First frame, positions [V, N, 2] float32, and visibility [V, N] of a window."""
    if not path.stem.isdecimal():
        raise InputError(f"{path}: expected a name that is the number of the first frame, such as 00012.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file.files]
            if missing:
                raise InputError(f"{path} has no {', '.join(missing)}; expected {_EXPECTED}")
            xy, visible, query = (np.asarray(file[key]) for key in _KEYS)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}; expected {_EXPECTED}") from error
    shape = xy.shape[:2]
    numbers = all(np.issubdtype(a.dtype, np.number) or a.dtype == bool for a in (xy, visible, query))
    if not numbers or xy.ndim != 3 or xy.shape[2] != 2 or visible.shape != shape or query.shape != shape[1:]:
        raise InputError(
            f"{path}: expected {_EXPECTED}, got {list(xy.shape)}, {list(visible.shape)} and {list(query.shape)}"
        )
    if not np.isfinite(xy[visible != 0]).all():
        raise InputError(f"{path}: expected finite positions where a point is visible, got others")
    return int(path.stem), xy.astype(np.float32), visible != 0
