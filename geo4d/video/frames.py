"""Folders of pictures and single picture files as a source of frames: which, in which order, when, and how bright."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.times import FrameTimes, load_frame_times
from geo4d.video.names import Order, matches, order_names, time_gaps
from geo4d.video.pictures import IMAGE_SUFFIXES, PictureFile, to_colour

OTHER_PICTURES = (
    *(".gif", ".avif", ".jxl", ".jp2", ".exr", ".hdr", ".tga", ".psd", ".svg", ".pfm", ".pbm"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
"""Pictures that are not read; a folder that holds some says so."""

QUANTILES = (0.1, 99.9)
"""Percentiles of a deep picture that bound its range: a few dead pixels do not decide it."""

FULL_RANGE = 0.5
"""Deep pictures that fill at least this share of their full range are shown as they are."""

ALL = "*"
"""The pattern that takes several sequences together."""


@dataclass(frozen=True)
class FrameList:
    """The pictures of a folder, in order.

    Attributes:
        files: one or more; they need not be readable.
        times_s: [files] seconds, strictly increasing, or None where nothing states them.
        notes: statements for the user.
    """

    files: tuple[Path, ...]
    times_s: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def refuse_address(source: str | Path) -> None:
    """
    Raises:
        InputError: the source is an address, such as ``https://example.com/a.mp4``, as text or as a path.
    """
    address = re.match(
        r"([a-z][a-z0-9+.-]+):/+", str(source), re.IGNORECASE
    )  # a path keeps one of the slashes
    if address and not os.path.exists(source):
        raise InputError(
            f"expected a file or folder of this machine, got the address {address[1]}://{str(source)[address.end() :]}; "
            "download it first"
            + ("; 'geo4d batch' reads object stores" if address[1].lower() in ("s3", "gs", "az") else "")
        )


def list_frames(
    folder: Path,
    pictures: str | Sequence[str] | None = None,
    times: str | Path | Sequence[float] | np.ndarray | None = None,
    *,
    find_times: bool = True,
) -> FrameList:
    """The pictures of a folder in order of the values in their names, and their times. Hidden files are left out.

    Args:
        pictures: a pattern of file names (``*`` anything, ``#`` a number; only ``"*"`` takes several sequences
            together), or the files themselves, relative to the folder, in order. None takes all, which must be one
            sequence.
        times: a file of times, or one time per picture, seconds. None looks for ``times.txt``, ``timestamps.txt``,
            ``rgb.txt`` or ``data.csv`` in and beside the folder, then at the names.
        find_times: look for times where none are given.
    Raises:
        InputError: the folder cannot be read, holds no picture or several sequences, or the times do not fit.
    """
    if pictures is not None and not isinstance(pictures, str):
        order = Order(tuple(pictures), None, None, ())
        if not order.names:
            raise InputError(f"expected at least one picture of {folder}, got an empty list")
    else:
        names, notes = _names(folder, pictures)
        try:
            order = order_names(names, mixed=pictures == ALL)
        except InputError as error:
            raise InputError(f"{folder} {error}") from error
        order = replace(order, notes=(*notes, *order.notes))
    if isinstance(times, str | Path):
        order = _with_times(order, load_frame_times(times), Path(times))
    elif times is not None:
        times_s = _increasing(np.asarray(times, np.float64), order.names, "the times")
        order = replace(order, times_s=times_s, notes=(*order.notes, *time_gaps(times_s, order.names)))
    elif find_times and (pictures is None or isinstance(pictures, str)):
        order = _with_found_times(order, folder)
    elif order.times_s is not None:
        order = replace(order, times_s=None, notes=(*order.notes, "times of the names are not used"))
    return FrameList(tuple(folder / name for name in order.names), order.times_s, order.notes)


def _names(folder: Path, pattern: str | None) -> tuple[list[str], list[str]]:
    """Names of the pictures of a folder, and statements of what is left out."""
    try:
        entries = [(entry.name, entry.is_dir()) for entry in os.scandir(folder)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    seen = [name for name, _ in entries if not _hidden(name)]
    names = [name for name in seen if PurePath(name).suffix.lower() in IMAGE_SUFFIXES or _dotted(name)]
    if not names:
        below = sorted(name for name, is_dir in entries if is_dir and _holds_pictures(folder / name))
        hint = f"; there are some in {', '.join(below[:5])}: name one of these" if below else ""
        raise InputError(
            f"{folder} holds no pictures; expected files ending in {', '.join(IMAGE_SUFFIXES)}{hint}"
        )
    notes = []
    if pattern is not None and pattern != ALL:
        chosen = [name for name in names if matches(name, pattern)]
        if not chosen:
            raise InputError(
                f"{folder}: none of {len(names)} pictures fits {pattern!r}; the first is {min(names)}"
            )
        if len(chosen) < len(names):
            notes.append(f"{len(chosen)} of {len(names)} pictures fit {pattern!r}; the others are left out")
        names = chosen
    other = Counter(PurePath(name).suffix.lower() for name in seen)
    for suffix in OTHER_PICTURES:
        if other[suffix]:
            notes.append(f"{other[suffix]} files ending in {suffix} are left out: geo4d does not read them")
    return names, notes


def _hidden(name: str) -> bool:
    return name.startswith(".") and not _dotted(name)


def _dotted(name: str) -> bool:
    """Whether a name is a decimal number without its zero, such as ``.05.png``."""
    suffix = PurePath(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES and re.fullmatch(r"\.[0-9]+", name[: -len(suffix)]) is not None


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in os.scandir(folder))
    except OSError:
        return False


def _with_found_times(order: Order, folder: Path) -> Order:
    """The times of a list in or beside the folder; otherwise those of the names."""
    folder = folder.absolute()
    inside = [folder / name for name in ("times.txt", "timestamps.txt", "rgb.txt", "data.csv")]
    beside = [folder.parent / name for name in (f"{folder.name}.txt", "times.txt", "timestamps.txt")]
    if folder.name == "data":
        beside.append(folder.parent / "data.csv")
    for path in (*inside, *beside):
        if not path.is_file():
            continue
        try:
            return _with_times(order, load_frame_times(path), path)
        except InputError as error:
            if path in inside:
                raise InputError(f"{error}; give --times FILE or --fps RATE to go without it") from error
            note = f"{path.name} beside the folder does not fit and is not used ({error})"
            order = replace(order, notes=(*order.notes, note))
    return order


def _with_times(order: Order, listed: FrameTimes, path: Path) -> Order:
    """The pictures with the times of a list: by file name, by number where a list counts from 0, or by position."""
    names, times_s = order.names, listed.times_s
    notes = [note for note in order.notes if not note.startswith("times are those of the names")]
    if listed.names is not None:
        rows: dict[str, int] = {}
        for row, text in enumerate(listed.names):
            name = PurePath(text).name
            if rows.setdefault(name, row) != row:
                raise InputError(f"{path} names {name} twice; expected one time for every picture")
        absent = [name for name in names if name not in rows]
        if absent:
            raise InputError(
                f"{path}: {len(absent)} of {len(names)} pictures are not in this list, the first is {absent[0]}; "
                "list them, or choose others with --pictures"
            )
        if len(rows) > len(names):
            notes.append(f"{len(rows) - len(names)} of {len(rows)} pictures in {path.name} are not there")
        found = [rows[name] for name in names]
        if found != sorted(found) and (np.diff(times_s[sorted(found)]) > 0).all():
            names = tuple(sorted(names, key=rows.__getitem__))
            notes.append(f"the pictures follow {path.name}, not the order of their names")
        times_s = times_s[[rows[name] for name in names]]
    elif len(times_s) != len(names):
        numbers = order.numbers
        counts = numbers is not None and numbers[0] >= 0 and numbers[-1] < len(times_s)
        if not counts or path.name not in ("times.txt", "timestamps.txt"):
            raise InputError(
                f"{path} has {len(times_s)} times, but there are {len(names)} pictures; expected one for each"
            )
        assert numbers is not None
        times_s = times_s[numbers.astype(int)]
        notes.append(
            f"{len(names)} of {len(listed.times_s)} times in {path.name} are used, by the pictures' numbers"
        )
    times_s = _increasing(times_s, names, str(path))
    unit = "" if listed.unit == "seconds" else f", {listed.unit}"
    notes += [f"times are those of {path.name}{unit}", *time_gaps(times_s, names)]
    return Order(names, times_s, order.numbers, tuple(notes))


def _increasing(times_s: np.ndarray, names: Sequence[str], what: str) -> np.ndarray:
    if times_s.shape != (len(names),):
        raise InputError(
            f"expected {len(names)} times for {len(names)} pictures, got {list(times_s.shape)} in {what}"
        )
    if not np.isfinite(times_s).all():
        raise InputError(f"expected finite times in seconds, got {what} with others")
    back = np.flatnonzero(np.diff(times_s) <= 0)
    if len(back):
        i = int(back[0])
        raise InputError(
            f"expected increasing times, but in {what} {names[i + 1]} ({times_s[i + 1]:.6f} s) does not follow "
            f"{names[i]} ({times_s[i]:.6f} s)"
        )
    return times_s


def list_times(times: str | Path | Sequence[float] | np.ndarray, count: int, what: str) -> np.ndarray:
    """[count] seconds of frames that have no names.

    Raises:
        InputError: not as many, not finite, or not increasing.
    """
    seconds = (
        load_frame_times(times).times_s if isinstance(times, str | Path) else np.asarray(times, np.float64)
    )
    source = times if isinstance(times, str | Path) else "the times"
    if seconds.shape != (count,):
        raise InputError(
            f"expected {count} times for {count} frames of {what}, got {len(seconds)} in {source}"
        )
    return _increasing(seconds, [f"frame {t}" for t in range(count)], str(source))


class FrameFiles:
    """Pictures of one size. A damaged one ends the readable part, as in a video file.

    Args:
        files: one picture each; a single file may hold several pages or an animation, and every one is a frame.
        stop: number of frames that will ever be asked for; None: all.
        value_range: values of pictures of more than 8 bits that become black and white; None takes the range of the
            whole sequence.
    Raises:
        InputError: no picture is readable.

    Attributes:
        size: (height, width) as displayed.
        expected: frames that should be there.
        damage: why fewer are readable, or None.
        total: frames without ``stop``.
        times_s: [total] of an animation, or None.
        value_range: that of deep pictures; None where every picture has 8 bits.
        notes: statements for the user.
    """

    def __init__(
        self,
        files: Sequence[Path],
        stop: int | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.damage: str | None = None
        self.notes: list[str] = []
        self.times_s: np.ndarray | None = None
        self.value_range: tuple[float, float] | None = None
        self._frames: list[tuple[Path, int]] = []
        self._open: PictureFile | None = None
        self._alone = len(files) == 1
        wanted = list(files) if self._alone else list(files)[:stop]
        self.expected, self.total = len(wanted), len(files)
        deep: list[bool] = []
        several: list[str] = []
        for path in wanted:
            try:
                picture = PictureFile(path)
                pages = picture.pages[:stop] if self._alone else picture.pages[:1]
                if self._alone and picture.num_pages > 1:
                    self._describe(picture)
                    self.times_s, self.expected = picture.times_s, len(pages)
                    self.total = picture.num_pages
                elif picture.num_pages > 1:
                    several.append(f"{path.name} ({picture.num_pages})")
                for index, page in enumerate(pages):
                    height, width = page.size
                    if not self._frames:
                        self.size = page.size
                    elif page.size != self.size:
                        which = f"page {index + 1} " if index else ""
                        raise InputError(
                            f"{which}is {width} x {height}, the first is {self.size[1]} x {self.size[0]}"
                        )
                    self._frames.append((path, index))
                    deep.append(page.deep)
            except InputError as error:
                self.damage = f"{path.name}: {error}"
                break
        if not self._frames:
            where = files[0] if self._alone else files[0].parent
            raise InputError(f"{where}: none of {self.expected} pictures is readable ({self.damage})")
        if several:
            self.notes.append(
                f"only the first page of each picture is used, but {len(several)} hold more: "
                f"{', '.join(several[:3])}; give such a file itself to use all its pages"
            )
        if any(deep):
            self._find_range(deep, value_range)

    @property
    def files(self) -> list[Path]:
        """Those that frames come from."""
        return list(dict.fromkeys(path for path, _ in self._frames))

    @property
    def num_frames(self) -> int:
        """Number of pictures in the sequence."""
        return len(self._frames)

    def read(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 as displayed.

        Raises:
            InputError: the file changed, or cannot be decoded.
        """
        return to_colour(self._values(index), self.value_range)

    def close(self) -> None:
        """Let go of the file that is open."""
        self._open = None

    def _values(self, index: int) -> np.ndarray:
        path, page = self._frames[index]
        try:
            picture = self._open
            if picture is None or picture.path != path:
                picture = PictureFile(path)
                # A file of many frames stays open: it need not be read again for each.
                self._open = picture if self._alone and picture.num_pages > 1 else None
            if page >= picture.num_pages or picture.pages[page].size != self.size:
                raise InputError("changed while it was read")
            return picture.read(page)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def _describe(self, picture: PictureFile) -> None:
        kind = "frames of an animation" if picture.times_s is not None else "pages"
        self.notes.append(f"{picture.path.name} holds {picture.num_pages} {kind}; each is a frame")
        if picture.skipped:
            self.notes.append(f"{picture.skipped} of its pages are previews or masks and are left out")

    def _find_range(self, deep: Sequence[bool], given: tuple[float, float] | None) -> None:
        """The range of the whole sequence: every deep picture is looked at once."""
        what = "pictures of more than 8 bits" + (
            "" if all(deep) else f" ({sum(deep)} of {len(deep)}; the others are as they are)"
        )
        if given is not None:
            self.value_range = given
            self.notes.append(f"{what}: values {given[0]:g} to {given[1]:g} become black to white, as chosen")
            return
        bounds, dtypes = [], set()
        for index in np.flatnonzero(deep):
            try:
                values = self._values(int(index))
            except InputError as error:
                self._cut(int(index), error)
                break
            dtypes.add(values.dtype)
            colour = values if values.ndim == 2 else values[..., :3]
            if colour.dtype.kind == "f":
                colour = colour[np.isfinite(colour)]
            if colour.size:
                bounds.append(np.percentile(colour, QUANTILES))
        low, high = (
            (float(np.min(bounds, axis=0)[0]), float(np.max(bounds, axis=0)[1])) if bounds else (0.0, 0.0)
        )
        full = _full_range(dtypes)
        if full is not None and full[0] <= low and high <= full[1] and high - low >= FULL_RANGE * full[1]:
            self.value_range = full
            self.notes.append(f"{what}: the full range, {full[0]:g} to {full[1]:g}, becomes black to white")
        elif high > low:
            self.value_range = (low, high)
            self.notes.append(
                f"{what}: values {low:.6g} to {high:.6g}, the range of the whole sequence, become black to white"
            )
        else:
            self.value_range = (low, low + 1)
            self.notes.append(f"{what}: all have the one value {low:g} and become black")

    def _cut(self, index: int, error: InputError) -> None:
        """A picture that turns out not to be decodable ends the readable part."""
        if index == 0:
            raise error
        self.damage = str(error)
        self._frames = self._frames[:index]


def _full_range(dtypes: Iterable[np.dtype]) -> tuple[float, float] | None:
    """The values of black and white of a type, where it has one."""
    kinds = {np.dtype(dtype) for dtype in dtypes}
    if kinds == {np.dtype(np.uint16)}:
        return 0.0, 65535.0
    if kinds and all(kind.kind == "f" for kind in kinds):
        return 0.0, 1.0
    return None
