"""Pieces that readers share: files in order, lazy frames and maps, partners by number, cameras."""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geo4d.datasets.base import Reader, missing
from geo4d.errors import InputError, MissingExtraError
from geo4d.formats.files import existing_file
from geo4d.types import FrameArray, LazyFrames

if TYPE_CHECKING:
    from h5py import File

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


def float16_png(path: Path) -> np.ndarray:
    """float32 [H, W] of a 16-bit PNG whose values are the bits of half-precision numbers."""
    from geo4d.formats.images import load_png16

    return load_png16(path).astype(np.uint16).view(np.float16).astype(np.float32)


def exr_map(path: Path, *names: str) -> np.ndarray:
    """float32 [H, W]: the first of the named channels that is there, or the only one.

    Raises:
        InputError: damaged, or several channels and none of the names.
    """
    from geo4d.formats.images import load_exr

    channels = load_exr(path)
    found = [channels[name] for name in names if name in channels] or list(channels.values())
    if len(found) > 1 and not any(name in channels for name in names):
        raise InputError(
            f"expected one of the channels {', '.join(names)} in {path}, got {', '.join(channels)}"
        )
    return found[0].astype(np.float32)


def open_hdf5(path: Path) -> "File":
    """An HDF5 file to read, as a context manager.

    Raises:
        InputError: missing or damaged.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "train", f"reading {path.name}") from error
    try:
        return h5py.File(existing_file(path, "an HDF5 file"), "r")
    except OSError as error:
        raise InputError(
            f"expected an HDF5 file, but {path} cannot be read: {error}; it may be truncated"
        ) from error


def load_hdf5(path: Path, key: str) -> np.ndarray:
    """One array of an HDF5 file.

    Raises:
        InputError: missing, damaged, or without that array; the message lists those that are there.
        MissingExtraError: h5py is not installed.
    """
    with open_hdf5(path) as file:
        if key not in file:
            raise InputError(
                f"expected an array {key!r} in {path}, got {', '.join(list(file)[:8]) or 'none'}"
            )
        try:
            return np.asarray(file[key])
        except OSError as error:
            raise InputError(f"expected an array {key!r} in {path}, but it is damaged: {error}") from error


def load_json(path: Path) -> Any:
    """
    Raises:
        InputError: missing or not JSON.
    """
    try:
        return json.loads(existing_file(path, "a JSON file").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got: {error}") from error


def known_depth(depth: np.ndarray, *, sky_from: float | None = None, known_to: float = np.inf) -> np.ndarray:
    """float32 z-depth by the rules of sequences: NaN for 0, negative and not finite values, +inf for the sky.

    Args:
        depth: any shape.
        sky_from: this value and larger ones, +inf included, are the sky; None: the map says nothing of the sky.
        known_to: larger ones are unknown; what is the sky stays so.
    """
    with np.errstate(invalid="ignore"):
        known = (depth > 0) & (depth <= known_to) & np.isfinite(depth)
        result = np.where(known, depth, np.nan)
        sky = np.zeros(depth.shape, bool) if sky_from is None else depth >= sky_from
        return np.where(sky, np.inf, result).astype(np.float32)


def range_to_depth(distance: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """z-depth from distances to the camera's centre.

    Args:
        distance: [H, W]; NaN and infinity stay.
        intrinsics: [3, 3] in pixels of the map.
    """
    height, width = distance.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(intrinsics).T
    return (distance * rays[..., 2] / np.linalg.norm(rays, axis=-1)).astype(np.float32)


def intrinsics_rows(rows: np.ndarray, *, integer_centres: bool) -> np.ndarray:
    """[T, 3, 3] with pixel centres at +0.5 from rows fx, fy, cx, cy."""
    matrices = np.tile(np.eye(3), (len(rows), 1, 1))
    matrices[:, 0, 0], matrices[:, 1, 1] = rows[:, 0], rows[:, 1]
    matrices[:, :2, 2] = rows[:, 2:4] + (0.5 if integer_centres else 0.0)
    return matrices


def frame_numbers(files: Iterable[Path]) -> np.ndarray:
    """The last number in each file's name.

    Raises:
        InputError: a name has none.
    """
    numbers = []
    for path in files:
        found = re.findall(r"[0-9]+", path.stem)
        if not found:
            raise InputError(f"expected a frame number in the name of {path}")
        numbers.append(int(found[-1]))
    return np.array(numbers)


def rows_of(rows: np.ndarray, numbers: np.ndarray, path: Path, reader: Reader) -> np.ndarray:
    """The rows of a camera file that belong to these frames; row i to frame i.

    Raises:
        InputError: the file is shorter than the frames need.
    """
    if len(numbers) and (numbers.max() >= len(rows) or numbers.min() < 0):
        raise missing(reader, path, f"{len(rows)} rows, frame {numbers.max()} needs one more")
    return rows[numbers]


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


def centred_field_of_view(num_frames: int, angle: float, size: tuple[int, int]) -> np.ndarray:
    """[T, 3, 3] float64 of square pixels with the principal point in the middle, pixel centres at +0.5.

    Args:
        angle: from the left border to the right one, radians.
        size: (height, width).
    """
    height, width = size
    focal = width / 2 / np.tan(angle / 2)
    return constant_intrinsics(num_frames, focal, focal, width / 2, height / 2, integer_centres=False)


def find_below(root: Path, splits: tuple[str, ...], is_sequence: Callable[[Path], bool]) -> dict[str, Path]:
    """Name -> folder of the sequences that ``root`` is, or that lie in it or in its ``splits``; sorted."""
    if is_sequence(root):
        return {root.name: root}
    found: dict[str, Path] = {}
    for base in (root, *(root / split for split in splits)):
        if base.is_dir():
            found |= {
                (path.name if base == root else f"{base.name}/{path.name}"): path
                for path in sorted(base.iterdir())
                if is_sequence(path)
            }
    return found


def associate_nearest(query_s: np.ndarray, stamps_s: np.ndarray, max_difference_s: float) -> np.ndarray:
    """Index of the nearest stamp for each query, -1 where none is near enough."""
    if stamps_s.size == 0:
        return np.full(query_s.shape, -1)
    nearest = np.abs(query_s[:, None] - stamps_s[None]).argmin(axis=1)
    return np.where(np.abs(stamps_s[nearest] - query_s) <= max_difference_s, nearest, -1)


def associate_pairs(
    first_s: np.ndarray, second_s: np.ndarray, max_difference_s: float
) -> list[tuple[int, int]]:
    """Pairs (index in first, index in second) less than that apart, the closest first, each index once; by time.

    Source: the association script of the TUM RGB-D benchmark, which its users run before anything else.
    """
    order = np.argsort(second_s, kind="stable")
    stamps = second_s[order]
    low = np.searchsorted(stamps, first_s - max_difference_s)
    high = np.searchsorted(stamps, first_s + max_difference_s, side="right")
    near = [
        (abs(first_s[i] - stamps[j]), float(first_s[i]), float(stamps[j]), i, int(order[j]))
        for i in range(len(first_s))
        for j in range(low[i], high[i])
        if abs(first_s[i] - stamps[j]) < max_difference_s
    ]
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    pairs = []
    for _, _, _, i, j in sorted(near):
        if i not in taken_first and j not in taken_second:
            taken_first.add(i)
            taken_second.add(j)
            pairs.append((i, j))
    return sorted(pairs, key=lambda pair: first_s[pair[0]])


def nominal_times(num_frames: int, fps: float = 24.0) -> tuple[np.ndarray, str]:
    """[T] seconds at an assumed rate, and the note that says so."""
    return np.arange(
        num_frames
    ) / fps, f"times are nominal: the data set states none, {fps:g} frames a second are taken"


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
