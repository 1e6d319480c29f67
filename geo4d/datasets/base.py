"""A ``Sequence`` is one video with ground truth, read lazily; a ``Reader`` knows one dataset's folders.

Conventions of a sequence are the package's: OpenCV axes, ``c2w``, z-depth with NaN where unknown and +inf in the sky,
intrinsics with pixel centres at +0.5. A reader converts once, when it loads.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from geo4d.errors import InputError
from geo4d.types import FrameArray, LazyFrames, ScaleKind

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Tracks:
    """Surface points followed over all frames.

    Attributes:
        pixels: [T, N, 2] positions (x, y) in pixels of the maps; anything where not visible.
        depth: [T, N] z-depth of the points.
        visible: [T, N] seen in that frame.
    """

    pixels: np.ndarray
    depth: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True, eq=False)
class Sequence:
    """Frames and ground truth of one video. Maps are read when sliced.

    Attributes:
        name: of the sequence in its dataset.
        dataset: name of the reader.
        times_s: [T] seconds, increasing.
        size: (height, width) of the ground-truth maps (and of ``intrinsics``).
        rgb: [T, h, w, 3] float32 in [0, 1], at the size of the files, or None.
        depth: [T, H, W] float32 z-depth, NaN where unknown, +inf in the sky, or None.
        intrinsics: [T, 3, 3] in pixels of ``size``, or None.
        c2w: [T, 4, 4]; NaN for a frame without ground truth; or None.
        dynamic: [T, H, W] bool, True on moving things, or None.
        tracks: points followed over the frames, moving ones included, or None.
        scale_kind: ``metric`` (metres) or ``scale`` (one unknown factor for depth and translations).
        depth_source: how depth was measured.
        pose_source: how poses were measured.
        files: every file the sequence reads, for provenance.
        notes: what was left out or repaired while reading.
    """

    name: str
    dataset: str
    times_s: np.ndarray
    size: tuple[int, int]
    rgb: FrameArray | None = None
    depth: FrameArray | None = None
    intrinsics: np.ndarray | None = None
    c2w: np.ndarray | None = None
    dynamic: FrameArray | None = None
    tracks: Tracks | None = None
    scale_kind: ScaleKind = "metric"
    depth_source: str = "unknown"
    pose_source: str = "unknown"
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_frames == 0:
            raise InputError(f"expected frames in {self.dataset} sequence {self.name}, found none")
        for field in ("rgb", "depth", "intrinsics", "c2w", "dynamic"):
            value = getattr(self, field)
            if value is not None and value.shape[0] != self.num_frames:
                raise InputError(
                    f"expected {self.num_frames} frames of {field} in {self.dataset} sequence {self.name}, "
                    f"got {value.shape[0]}"
                )
        for field in ("depth", "dynamic"):
            value = getattr(self, field)
            if value is not None and tuple(value.shape[1:3]) != self.size:
                raise InputError(
                    f"expected {field} maps of size {self.size} in {self.name}, got {tuple(value.shape[1:3])}"
                )
        backward = np.flatnonzero(np.diff(self.times_s) <= 0)
        if backward.size:
            raise InputError(
                f"expected increasing times in {self.dataset} sequence {self.name}, but frame {backward[0] + 1} "
                f"({self.times_s[backward[0] + 1]:.6f} s) does not follow frame {backward[0]} "
                f"({self.times_s[backward[0]]:.6f} s)"
            )

    @property
    def num_frames(self) -> int:
        return len(self.times_s)

    @property
    def has_depth(self) -> bool:
        return self.depth is not None

    @property
    def has_poses(self) -> bool:
        return self.c2w is not None


@dataclass(frozen=True, eq=False)
class Recording:
    """What a camera recorded, without ground truth.

    Attributes:
        title: of the data set.
        files: the pictures in order; those that are not readable are for their reader to refuse.
        times_s: [files] seconds, strictly increasing.
        intrinsics: fx, fy, cx, cy in pixels of ``size``, pixel centres at +0.5; None where the folder does not tell.
        size: (height, width) that the intrinsics belong to; None where the folder does not tell.
        camera: what is to be known of the camera: where the numbers come from, distortion, why there are none.
        notes: statements: which pictures were taken, what is missing.
    """

    title: str
    files: tuple[Path, ...]
    times_s: np.ndarray
    intrinsics: tuple[float, float, float, float] | None
    size: tuple[int, int] | None
    camera: str
    notes: tuple[str, ...] = ()

    def intrinsics_for(self, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """The intrinsics if they are those of pictures of that (height, width)."""
        if self.intrinsics is None or (self.size is not None and self.size != size):
            return None
        return self.intrinsics

    def camera_note(self, size: tuple[int, int], known: bool) -> str:
        """A statement of which camera is used.

        Args:
            size: (height, width) of the pictures.
            known: the user gave a camera, which wins.
        """
        if known:
            return f"the camera is the one given, not that of {self.title}"
        if self.intrinsics is None:
            return f"the camera is estimated: {self.camera}"
        if self.intrinsics_for(size) is None:
            height, width = self.size or size
            return (
                f"the camera is estimated: that of {self.title} is for {width}x{height}, the pictures are "
                f"{size[1]}x{size[0]}"
            )
        fx, fy, cx, cy = self.intrinsics
        return f"camera of {self.title}: fx {fx:.6g}, fy {fy:.6g}, cx {cx:.6g}, cy {cy:.6g} px; {self.camera}"


@dataclass(frozen=True)
class Reader:
    """How one dataset lies on disk.

    Attributes:
        name: key in ``READERS``.
        title: full name.
        url: where to get it.
        layout: the files that must be there, for error messages and the documentation.
        find: root (of the dataset, or of one sequence) -> sequence name -> folder or file to load; empty where the
            layout is another one.
        load: (path from ``find``, name) -> sequence.
        record: (folder of one sequence, a folder in it that the pictures must lie in) -> what a camera recorded, or None
            where the layout is another one; None for readers that give no footage of one camera.
    """

    name: str
    title: str
    url: str
    layout: str
    find: Callable[[Path], dict[str, Path]]
    load: Callable[[Path, str], Sequence]
    record: Callable[[Path, Path], Recording | None] | None = None


_READERS = "geo4d.datasets.readers."
READERS: dict[str, tuple[str, str]] = {
    "folder": (_READERS + "synthetic", "READER"),
    "tartanair": (_READERS + "tartanair", "READER"),
    "hololens": (_READERS + "hololens", "READER"),
    "iclnuim": (_READERS + "iclnuim", "READER"),
    "bonn": (_READERS + "bonn", "READER"),
    "tum": (_READERS + "tum", "READER"),
    "sintel": (_READERS + "sintel", "FINAL"),
    "sintel-clean": (_READERS + "sintel", "CLEAN"),
    "kitti": (_READERS + "kitti", "DEPTH"),
    "kitti-odometry": (_READERS + "kitti", "ODOMETRY"),
    "7scenes": (_READERS + "seven_scenes", "READER"),
    "scannet": (_READERS + "scannet", "READER"),
    "gmu-kitchens": (_READERS + "gmu_kitchens", "READER"),
    "ddad": (_READERS + "ddad", "READER"),
    "monkaa": (_READERS + "monkaa", "READER"),
    "diode": (_READERS + "diode", "READER"),
    "euroc": (_READERS + "euroc", "READER"),
    "pavilion": (_READERS + "pavilion", "READER"),
    "nerfstudio": (_READERS + "nerfstudio", "READER"),
    "colmap": (_READERS + "colmap", "READER"),
}
"""Reader name -> (module, name in it). The order is that of automatic detection: specific layouts first."""


def load_reader(name: str) -> Reader:
    """The reader of that name.

    Raises:
        ValueError: unknown name.
    """
    if name not in READERS:
        raise ValueError(f"expected one of {', '.join(READERS)} as the dataset, got {name!r}")
    module, attribute = READERS[name]
    reader: Reader = getattr(import_module(module), attribute)
    return reader


def find_sequences(reader: Reader, root: Path | str) -> dict[str, Path]:
    """The sequences under ``root``, by name.

    Raises:
        InputError: there are none; the message says what is missing and where to get the dataset.
    """
    root = Path(root)
    found = reader.find(root) if root.is_dir() else {}
    if not found:
        kind = "the folder has another layout" if root.is_dir() else "there is no such folder"
        raise missing(reader, root, kind)
    return found


def missing(reader: Reader, path: Path, what: str) -> InputError:
    """The error for a wrong or partial folder."""
    return InputError(
        f"expected {reader.title} under {path}: {what}. Layout: {reader.layout} Get it from {reader.url}"
    )


def load_ground_truth(folder: Path | str, reader: str | None = None) -> Sequence:
    """The one sequence in a folder; its layout is recognised.

    Args:
        reader: name of the reader to use; None tries all of them.
    Raises:
        InputError: no layout fits, or the folder holds several sequences.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"expected a folder with ground truth at {folder}, found none; check the path")
    for name in [reader] if reader is not None else READERS:
        candidate = load_reader(name)
        found = candidate.find(folder)
        if len(found) > 1:
            raise InputError(
                f"expected one {candidate.title} sequence in {folder}, found {len(found)} "
                f"({', '.join(list(found)[:4])}, ..); name the folder of one of them"
            )
        if found:
            sequence_name, path = next(iter(found.items()))
            return candidate.load(path, sequence_name)
    raise InputError(
        f"expected ground truth in a known layout in {folder}, recognised none of {', '.join(READERS)}; "
        "docs/datasets.md shows the layouts, the simplest is rgb/, depth/, poses.txt and intrinsics.txt"
    )


# Pieces that readers share --------------------------------------------------------------------------------------------


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
    """The files of ``second`` that belong to those of ``first``, by number or equal position.

    Raises:
        InputError: counts differ; the message names the first file without a partner.
    """
    if len(first) == len(second):
        return second
    stems = {path.stem for path in second}
    lonely = [path.name for path in first if path.stem not in stems]
    detail = f", first without: {lonely[0]}" if lonely and len(lonely) < len(first) else ""
    raise missing(reader, folder, f"{len(first)} frames but {len(second)} {what}{detail}")


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


# Views of a sequence --------------------------------------------------------------------------------------------------


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
