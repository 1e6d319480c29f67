"""Pieces that readers share: files in order, lazy frames and maps, partners by number, cameras."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, missing
from geo4d.errors import InputError
from geo4d.types import FrameArray, LazyFrames

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff")


def list_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Files of a folder with one of the suffixes, in natural order (numbers by value); empty if there is no folder."""
    if not folder.is_dir():
        return []
    wanted = {suffix.lower() for suffix in suffixes}
    files = [
        path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith(".")
    ]
    return sorted(files, key=lambda path: natural_key(path.stem))


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that orders embedded numbers by value."""
    pieces: list[tuple[int, int | str]] = []
    digits = text[:0]
    for character in [*text, ""]:
        if character.isdecimal():
            digits += character
            continue
        if digits:
            pieces.append((0, int(digits)))
            digits = ""
        if character:
            pieces.append((1, character))
    return tuple(pieces)


def rgb_frames(files: list[Path]) -> LazyFrames:
    """[T, h, w, 3] float32 in [0, 1], decoded when sliced.

    Raises:
        InputError: (when sliced) a frame is damaged or has another size.
    """
    from geo4d.formats.images import load_image

    height, width = load_image(files[0]).shape[:2]

    def compute(t: int) -> np.ndarray:
        image = load_image(files[t])
        if image.shape[:2] != (height, width):
            raise InputError(
                f"expected {width} x {height} pixels as in {files[0].name}, got "
                f"{image.shape[1]} x {image.shape[0]} in {files[t]}"
            )
        return image

    return LazyFrames((len(files), height, width, 3), np.dtype(np.float32), compute)


def map_frames(files: list[Path], load: Callable[[Path], np.ndarray], dtype: type = np.float32) -> LazyFrames:
    """[T, H, W] maps, one file per frame, read by ``load`` when sliced.

    Raises:
        InputError: (when sliced) a map has another size.
    """
    height, width = load(files[0]).shape[:2]

    def compute(t: int) -> np.ndarray:
        values = load(files[t])
        if values.shape != (height, width):
            raise InputError(
                f"expected a map of {height} x {width} as in {files[0].name}, got {list(values.shape)} in {files[t]}"
            )
        return values

    return LazyFrames((len(files), height, width), np.dtype(dtype), compute)


def map_size(array: FrameArray) -> tuple[int, int]:
    """(height, width) of the frames of an array."""
    return int(array.shape[1]), int(array.shape[2])


def png_depth(units_per_metre: float) -> Callable[[Path], np.ndarray]:
    """Loader of 16-bit depth PNGs: value / ``units_per_metre`` in metres, 0 is missing (NaN)."""
    from geo4d.formats.images import load_png16

    def load(path: Path) -> np.ndarray:
        raw = load_png16(path)
        return np.where(raw > 0, raw / units_per_metre, np.nan).astype(np.float32)

    return load


def same_stems(first: list[Path], second: list[Path], reader: Reader, folder: Path, what: str) -> list[Path]:
    """The files of ``second`` in the order of those of ``first``, each with the partner of its own frame.

    Partners carry the same numbers in their names (``frame_0004.png`` and ``frame_0004.dpt``, ``000004_left.png`` and
    ``000004_left_depth.npy``), or the same last number, or, where a name has no number, the same name.

    Raises:
        InputError: a file has no partner; the message names the first.
    """
    for key in (_numbers, _last_number, _stem):
        ours, theirs = [key(path) for path in first], [key(path) for path in second]
        usable = None not in ours and len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs)
        if usable and set(ours) == set(theirs):
            partner = dict(zip(theirs, second, strict=True))
            return [partner[name] for name in ours]
    known = {_last_number(path) or _stem(path) for path in second}
    lonely = [path.name for path in first if (_last_number(path) or _stem(path)) not in known]
    detail = f"; {lonely[0]} is the first without" if lonely else "; names do not tell which belong together"
    raise missing(reader, folder, f"{len(first)} frames and {len(second)} {what}{detail}")


def _numbers(path: Path) -> tuple[str, ...] | None:
    return tuple(number.lstrip("0") for number in re.findall(r"[0-9]+", path.stem)) or None


def _last_number(path: Path) -> tuple[str, ...] | None:
    numbers = _numbers(path)
    return numbers[-1:] if numbers else None


def _stem(path: Path) -> tuple[str, ...]:
    return (path.stem,)


def constant_intrinsics(
    num_frames: int, fx: float, fy: float, cx: float, cy: float, *, integer_centres: bool
) -> np.ndarray:
    """[T, 3, 3] float64 with pixel centres at +0.5; ``integer_centres``: the numbers count centres as integers."""
    shift = 0.5 if integer_centres else 0.0
    matrix = np.array([[fx, 0, cx + shift], [0, fy, cy + shift], [0, 0, 1]], np.float64)
    return np.tile(matrix, (num_frames, 1, 1))


def associate_nearest(query_s: np.ndarray, stamps_s: np.ndarray, max_difference_s: float) -> np.ndarray:
    """Index of the nearest stamp for each query, -1 where none is near enough."""
    if stamps_s.size == 0:
        return np.full(query_s.shape, -1)
    nearest = np.abs(query_s[:, None] - stamps_s[None]).argmin(axis=1)
    return np.where(np.abs(stamps_s[nearest] - query_s) <= max_difference_s, nearest, -1)


def choose_camera(folder: Path, names: Iterable[str], inside: Path) -> tuple[Path, list[str]] | None:
    """The first of the named folders of pictures that is there and lies in ``inside``, and all that are there."""
    there = [name for name in names if (folder / name).is_dir()]
    for name in there:
        place = folder / name
        if place.is_relative_to(inside) or inside.is_relative_to(place):
            return place, there
    return None


def present(folder: Path, stamps: np.ndarray, names: Iterable[str]) -> tuple[np.ndarray, list[Path], int]:
    """Listed pictures that have an entry in the folder, by time, and how many have none.

    A link that leads nowhere is an entry: the picture should be there, and its reader says that it is not.
    """
    rows = [(float(stamp), folder / name) for stamp, name in zip(stamps, names, strict=True)]
    there = sorted(row for row in rows if os.path.lexists(row[1]))
    return np.array([row[0] for row in there]), [row[1] for row in there], len(rows) - len(there)
