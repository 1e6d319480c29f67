"""Folders of measured depth as robots keep them: 16-bit PNG, EXR, npy or npz, one file a frame, found again by name,
time or number."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.arrays import load_npy, load_npz, npz_shapes
from geo4d.formats.images import load_exr, load_png16
from geo4d.formats.times import load_frame_times
from geo4d.video.io import Video
from geo4d.video.limits import MAX_PIXELS
from geo4d.video.names import order_names

SUFFIXES = (".png", ".exr", ".npy", ".npz")
"""Files of depth that are read."""

TUM_UNIT = 1 / 5000
"""Metres of value 1 in recordings with a ``depth.txt``, as the TUM RGB-D benchmark defines them."""

OWN_EXPORT = "depth.json"
"""Beside the 16-bit pictures that ``geo4d export --format png`` writes: their unit."""

LEAST_MATCHED = 0.5
"""Share of the frames that must find a partner for a rule of matching to count."""

_MOST_BYTES = 8 * MAX_PIXELS
"""Of a map in an npz, unpacked."""

_CHANNELS = ("Z", "depth", "depth.Z", "Depth.Z", "Y", "R")


@dataclass(frozen=True, eq=False)
class DepthFolder:
    """Depth measured beside a video.

    Attributes:
        folder: as it was named.
        files: in order.
        unit: metres of value 1.
        times_s: [files] seconds, or None where nothing states them.
        numbers: [files] whole numbers of the names, or None.
        frames: [T] which file belongs to each frame of the video, -1 for none.
        notes: statements: the unit, how frames and files were matched.
        pictures: (height, width) of the frames, whose shape the maps must have.
    """

    folder: Path
    files: tuple[Path, ...]
    unit: float
    times_s: np.ndarray | None
    numbers: np.ndarray | None
    frames: np.ndarray
    notes: tuple[str, ...]
    pictures: tuple[int, int]

    def read(self, frame: int) -> np.ndarray:
        """[H, W] float32 z-depth of a frame that has a file, metres; NaN where nothing was measured.

        Raises:
            InputError: the file cannot be read, or its map is of another shape than the pictures.
        """
        path = self.files[int(self.frames[frame])]
        values = _values(path).astype(np.float64)
        _require_same_view(path, values.shape, self.pictures)
        known = np.isfinite(values) & (values > 0)
        if (path.parent / OWN_EXPORT).is_file():
            known &= values < 65535  # the sky there
        return np.where(known, values * self.unit, np.nan).astype(np.float32)


def open_depths(
    folder: str | Path, clip: Video, *, unit: float | None = None, time_offset_s: float = 0.0
) -> DepthFolder:
    """The depth files of a folder, matched to the frames of a clip.

    The first rule counts that gives half of the frames a partner: the same name but for its ending; the nearest time, at
    most half a frame away (``depth.txt`` in or beside the folder, or names that are times); as many files as the source
    has frames, in order; the number in the name as the frame's number in the source.

    Args:
        folder: with the files, or with ``depth.txt`` that lists them (TUM).
        unit: metres of value 1; None: metres in files of floating point, ``TUM_UNIT`` with a ``depth.txt``.
        time_offset_s: added to the times of the files.
    Raises:
        InputError: no depth there, several kinds of files, whole numbers without a unit, no rule fits; or a file that
            belongs to a frame is damaged or of another shape than the pictures (all are read once).
        ValueError: a unit that is not positive.
    """
    folder = Path(folder)
    if unit is not None and not 0 < unit < float("inf"):
        raise ValueError(f"expected a depth unit > 0, the metres of value 1, got {unit}")
    listed = _list(folder, clip.source_size)
    stated = unit if unit is not None else (TUM_UNIT if listed.notes else _unit_of(listed.files[0]))
    words = f"depth in steps of {stated:g} m" if stated != 1 else "depth in metres"
    frames, rule = _matched(listed, clip, time_offset_s)
    for number in np.unique(frames[frames >= 0]):  # a damaged file is told before hours of work, not after
        path = listed.files[int(number)]
        _require_same_view(path, _values(path).shape, clip.source_size)
    count = int((frames >= 0).sum())
    note = f"{folder.name}: {words}, {count} of {clip.num_frames} frames have a file ({rule})"
    return replace(listed, unit=stated, frames=frames, notes=(*listed.notes, note))


def _list(folder: Path, pictures: tuple[int, int]) -> DepthFolder:
    """The files of a folder in order, not yet matched."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"expected a folder of depth pictures at {folder}, found {found}; check the path")
    nothing = np.zeros(0, np.int64)
    tables = (
        folder / "depth.txt",
        folder.parent / "depth.txt" if folder.name == "depth" else folder / "depth.txt",
    )
    table = next((path for path in tables if path.is_file()), None)
    if table is not None:
        times = load_frame_times(table)
        if times.names is None:
            raise InputError(f"expected lines of 'time file' in {table}, got times only")
        rows = [(s, table.parent / name) for s, name in zip(times.times_s, times.names, strict=True)]
        rows = sorted((s, path) for s, path in rows if path.is_file())
        if not rows:
            raise InputError(f"none of the files that {table} lists is there")
        stamps = np.array([s for s, _ in rows])
        note = "depth.txt lists the depth: in steps of 1/5000 m unless --depth-unit says otherwise"
        return DepthFolder(
            folder, tuple(path for _, path in rows), 1.0, stamps, None, nothing, (note,), pictures
        )
    names = [
        path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."
    ]
    kinds = Counter(PurePath(name).suffix.lower() for name in names)
    if len(kinds) != 1:
        found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items())) or "none"
        raise InputError(
            f"expected depth files of one kind ({', '.join(SUFFIXES)}) in {folder}, found {found}; "
            "name the folder that holds them"
        )
    order = order_names(names)
    files = tuple(folder / name for name in order.names)
    numbers = None if order.numbers is None else np.asarray(order.numbers, np.int64)
    return DepthFolder(folder, files, 1.0, order.times_s, numbers, nothing, (), pictures)


def _require_same_view(path: Path, size: tuple[int, ...], pictures: tuple[int, int]) -> None:
    """Raises InputError unless a map has the shape of the pictures, in any size (to a pixel)."""
    height, width = size
    if abs(width * pictures[0] / pictures[1] - height) > 1 + 0.01 * height:
        raise InputError(
            f"expected depth registered to the pictures, of their shape ({pictures[1]} x {pictures[0]}) in any size, got "
            f"{width} x {height} in {path}; crop or register it, or leave --depth out"
        )


def _unit_of(path: Path) -> float:
    """1 where the file holds floating point; whole numbers need a unit, which our own export states beside them."""
    if _values(path).dtype.kind == "f":
        return 1.0
    beside = path.parent / OWN_EXPORT
    if beside.is_file():
        try:
            stated = json.loads(beside.read_text(encoding="utf-8"))
            if stated["conventions"]["unit"] == "metres":
                return float(stated["depth_step"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"expected depth_step and a unit in {beside}, got {error}; give --depth-unit"
            ) from error
    raise InputError(
        f"{path} holds whole numbers, and nothing states their unit; give --depth-unit METRES, the depth of value 1: "
        "0.001 for millimetres (RealSense, Kinect, ScanNet), 0.0002 for TUM RGB-D"
    )


def _values(path: Path) -> np.ndarray:
    """[H, W] of a file as stored."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        with path.open("rb") as file:
            bits = file.read(25)[24:25]
        if bits != b"\x10":  # the bit depth in the header
            raise InputError(f"expected a PNG of 16 bits with depth, {path} has another depth of bits")
        return load_png16(path).astype(np.uint16)
    if suffix == ".exr":
        channels = load_exr(path)
        name = next((name for name in _CHANNELS if name in channels), None)
        if name is None:
            raise InputError(
                f"expected a channel {', '.join(_CHANNELS)} with depth in {path}, got {', '.join(channels)}"
            )
        values = np.asarray(channels[name])
    else:
        values = _load_numpy(path)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise InputError(f"expected depth [H, W] in {path}, got {list(values.shape)} of {values.dtype}")
    return values


def _load_numpy(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return load_npy(path)
    names = list(npz_shapes(path))
    name = "depth" if "depth" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise InputError(f"expected an array 'depth', or one array only, in {path}, got {names}")
    return load_npz(path, (name,), most_bytes=_MOST_BYTES)[name]


def _matched(listed: DepthFolder, clip: Video, offset_s: float) -> tuple[np.ndarray, str]:
    """[T] file of each frame, -1 for none, and the rule by which they were found."""
    found: list[tuple[np.ndarray, str]] = []
    pictures = clip.reading.get("pictures")
    if pictures is not None and len(pictures) > max(clip.source_frames):
        stems = [PurePath(pictures[int(t)]).stem for t in clip.source_frames]
        found.append((_places([path.stem for path in listed.files], stems), "by name"))
    if listed.times_s is not None:
        found.append((_nearest(listed.times_s + offset_s, clip), "by time"))
    if len(listed.files) == clip.num_source_frames:
        found.append((clip.source_frames.astype(np.int64), "in order"))
    if listed.numbers is not None:
        numbers = [int(n) for n in listed.numbers]
        found.append((_places(numbers, [int(t) for t in clip.source_frames]), "by number"))
    for frames, rule in found:
        if (frames >= 0).mean() >= LEAST_MATCHED:
            return frames, rule
    tried = ", ".join(f"{int((frames >= 0).sum())} {rule}" for frames, rule in found) or "nothing to go by"
    hint = ""
    if listed.times_s is not None:
        hint = (
            f"; the times of the frames run from {clip.times_s[0]:.3f} to {clip.times_s[-1]:.3f} s, of the depth from "
            f"{listed.times_s[0] + offset_s:.3f} to {listed.times_s[-1] + offset_s:.3f} s "
            "(--time-offset SECONDS moves them)"
        )
    raise InputError(
        f"expected depth for at least half of the {clip.num_frames} frames among the {len(listed.files)} files of "
        f"{listed.folder}, matched {tried}{hint}"
    )


def _places(have: Sequence[str] | Sequence[int], wanted: Sequence[str] | Sequence[int]) -> np.ndarray:
    rows = {value: row for row, value in enumerate(have)}
    return np.array([rows.get(value, -1) for value in wanted], np.int64)


def _nearest(stamps_s: np.ndarray, clip: Video) -> np.ndarray:
    """[T] nearest in time, at most half a frame away; -1 for none."""
    after = np.clip(np.searchsorted(stamps_s, clip.times_s), 0, len(stamps_s) - 1)
    before = np.maximum(after - 1, 0)
    earlier = np.abs(stamps_s[before] - clip.times_s) <= np.abs(stamps_s[after] - clip.times_s)
    nearest = np.where(earlier, before, after)
    near = np.abs(stamps_s[nearest] - clip.times_s) <= 0.5 / clip.fps
    return np.where(near, nearest, -1)
