"""``Video``: any clip as a sequence of frames, read in order with little memory.

A video file, a folder of pictures, a single picture or an array all look the same from here on: frame ``i`` has a
number in the source, a presentation time and a picture, and only the frames in use are in memory.
"""

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.errors import InputError
from geo4d.formats.bags import bag_kind
from geo4d.formats.hashes import hash_file
from geo4d.video.arrays import ArraySource
from geo4d.video.bags import BagFrames
from geo4d.video.containers import VideoFile
from geo4d.video.first_look import FirstLook, Looking
from geo4d.video.frames import ALL, FrameFiles, list_frames, list_times, refuse_address
from geo4d.video.kept import KeptPictures
from geo4d.video.lens import Lens
from geo4d.video.pictures import sniff_image
from geo4d.video.shown import video_html
from geo4d.video.sizes import fit_size, resized

log = logging.getLogger(__name__)

CACHE_BYTES = 64 * 2**20
"""Decoded frames that are kept for windows that overlap, at most."""

CACHE_FRAMES = 160
"""More than any overlap."""


@runtime_checkable
class _Source(Protocol):
    """Where frames come from: ``read`` gives [H, W, 3] uint8."""

    @property
    def num_frames(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def read(self, index: int) -> np.ndarray: ...

    def close(self) -> None: ...


class Video:
    """A clip: lazily decoded frames with their times and their numbers in the source.

    Args:
        source: a video file, a folder of pictures (in order of the values in their names), one picture (of an
            animation or several pages, every one is a frame), a ROS bag or MCAP file, or an array [T, H, W, 3], uint8 or
            float in [0, 1].
        start: first source frame to use.
        stop: source frame to stop before; None: the end. Frames from there on are not even decoded.
        stride: use every ``stride``-th frame.
        max_size: longest side of the frames in pixels; larger ones are scaled down, aspect kept.
        fps: frames per second of a folder or an array, instead of the times that a folder states; files state their
            own times. Default 24.
        allow_partial: go on with the readable frames of a damaged source.
        pictures: which of a folder: a pattern of names, or names in order; see ``geo4d.video.frames.list_frames``.
        times: of all frames of a folder or an array: a file of times, or seconds, strictly increasing.
        value_range: values that become black and white in pictures of more than 8 bits; None takes the range of the
            whole sequence.
        look: sees the frames while a video file is opened, which takes a decode of its own anyway; other sources are
            not read for it.
        topic: of the pictures of a ROS bag or MCAP file; None takes the only one.
        lens: of distorted pictures, which are undistorted wherever they are read; None takes them as they are.
    Raises:
        InputError: missing, not a video, damaged without ``allow_partial``, or no frame in the range.
        ValueError: a nonsensical range or array, or no pinhole picture fits into those of the lens.

    Attributes:
        path: the source on disk, or None for an array.
        size: (height, width) of the frames: upright, square pixels, after ``max_size``.
        source_size: (height, width) before ``max_size``.
        times_s: [T] presentation times, seconds, as the file states them.
        source_frames: [T] numbers of the frames in the source.
        fps: frames per second of this sequence, the stride included; from the usual time step.
        damage: what is wrong with the source, or None.
        notes: statements about the source: where times and order come from, gaps, what is left out, ranges, and what was
            done to the pictures beyond decoding (deinterlaced, HDR to SDR).
        reading: arguments that open the same frames again, for a result that is read later.
        expected_frames: frames that the source should hold, where it says so.
    Examples:
        >>> video = Video(np.zeros((6, 48, 64, 3), np.uint8), fps=10, stride=2, max_size=32)
        >>> video, video.times_s.tolist(), video[1].shape
        (Video('array', 3 frames, 32x24, 5 fps), [0.0, 0.2, 0.4], torch.Size([24, 32, 3]))
    """

    def __init__(
        self,
        source: str | Path | np.ndarray | Tensor,
        *,
        start: int = 0,
        stop: int | None = None,
        stride: int = 1,
        max_size: int | None = None,
        fps: float | None = None,
        allow_partial: bool = False,
        pictures: str | Sequence[str] | None = None,
        times: str | Path | Sequence[float] | np.ndarray | None = None,
        value_range: tuple[float, float] | None = None,
        look: FirstLook | None = None,
        lens: Lens | None = None,
        topic: str | None = None,
    ) -> None:
        if start < 0 or stride < 1 or (stop is not None and stop <= start):
            raise ValueError(f"expected 0 <= start < stop and stride >= 1, got {start}, {stop}, {stride}")
        if max_size is not None and max_size < 1:
            raise ValueError(f"expected max_size >= 1 pixel, got {max_size}")
        if fps is not None and not 0 < fps < 1e6:
            raise ValueError(f"expected fps > 0, got {fps}")
        if fps is not None and times is not None:
            raise ValueError("expected fps or times of the frames, got both")
        if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
            raise ValueError(f"expected a value range LOW HIGH with LOW < HIGH, got {value_range}")
        self.path = None if isinstance(source, np.ndarray | Tensor) else Path(source)
        self.damage: str | None = None
        self.expected_frames: int | None = None
        self.notes: tuple[str, ...] = ()
        self.reading: dict[str, Any] = {}
        self._hash: str | None = None
        before = None if self.path is None else _identity(self.path)
        self._lens = lens
        self._watcher = None if look is None else Looking(look, start, stride, max_size, lens)
        self._source, stated = self._open(source, stop, pictures, times, value_range, fps, topic)
        self._identities = {path: _identity(path) for path in self._files()}
        if self.path in self._identities:
            self._identities[self.path] = before
        total = self._source.num_frames
        if stated is None:
            stated = np.arange(total) / (fps or 24.0)
        if self.damage is not None:
            of = self.expected_frames if self.expected_frames is not None else "an unknown number of"
            message = f"{self.name}: {total} of {of} frames readable ({self.damage})"
            if not allow_partial:
                raise InputError(f"{message}; use --allow-partial (allow_partial=True) to go on with those")
            log.warning("%s; going on with those", message)
        self.source_frames = np.arange(start, total if stop is None else min(stop, total), stride)
        if not len(self.source_frames):
            raise InputError(f"{self.name}: no frame from {start} on; it has {total} readable frames")
        if stop is not None and stop > total:
            log.warning("%s ends after %d frames, and so does the range", self.name, total)
        self.times_s = stated[self.source_frames].astype(np.float64)
        self.fps = _frame_rate(self.times_s, self._source, stride, fps)
        self.source_size = self._source.size
        self.size = fit_size(self.source_size, max_size)
        if lens is not None:
            self.undistort(lens)
        self._cache: OrderedDict[tuple[int, tuple[int, int]], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        self._decoded: tuple[int, np.ndarray] | None = None
        self._kept: KeptPictures | None = None

    def _open(
        self,
        source: str | Path | np.ndarray | Tensor,
        stop: int | None,
        pictures: str | Sequence[str] | None,
        times: str | Path | Sequence[float] | np.ndarray | None,
        value_range: tuple[float, float] | None,
        fps: float | None,
        topic: str | None,
    ) -> tuple[_Source, np.ndarray | None]:
        """The source, and the times of its frames where they are stated."""
        if isinstance(source, np.ndarray | Tensor):
            frames = ArraySource(source)
            return frames, None if times is None else list_times(times, frames.num_frames, self.name)
        refuse_address(source)
        path = Path(source)
        if bag_kind(path) is not None:
            return self._open_bag(
                path, stop, topic, times is not None or pictures is not None or fps is not None
            )
        if topic is not None:
            raise ValueError(f"expected a ROS bag or MCAP file with a topic, got {path}")
        if path.is_dir():
            listed = list_frames(path, pictures, times, find_times=fps is None)
            folder = FrameFiles(listed.files, stop, value_range)
            self._describe(folder, listed.notes)
            self.reading["pictures"] = [file.relative_to(path).as_posix() for file in folder.files]
            stated = folder.times_s if listed.times_s is None else listed.times_s
            return folder, None if stated is None else stated[: folder.num_frames]
        if pictures is not None:
            raise ValueError(f"expected a folder of pictures to choose from, got {path}")
        if not path.exists():
            raise InputError(f"{path} does not exist; expected a video file or a folder of frames")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; expected a video file or a folder of frames")
        with path.open("rb") as file:
            is_image = sniff_image(file.read(16)) is not None
        if is_image:
            picture = FrameFiles([path], stop, value_range)
            self._describe(picture, ())
            stated = picture.times_s if times is None else list_times(times, picture.total, self.name)
            if stated is not None and fps is not None:
                log.warning("%s states its own times; fps=%g is not used", self.name, fps)
            return picture, None if stated is None else stated[: picture.num_frames]
        if times is not None:
            raise InputError(f"{path} states its own times; times are for folders of pictures and arrays")
        file_source = VideoFile(path, stop, self._watcher)
        self.damage, self.expected_frames = file_source.table.damage, file_source.table.expected
        self.notes = file_source.table.notes
        for note in self.notes:
            log.warning("%s: %s", self.name, note)
        if fps is not None:
            log.warning("%s states its own times; fps=%g is not used", self.name, fps)
        return file_source, file_source.table.times_s

    def _open_bag(
        self, path: Path, stop: int | None, topic: str | None, otherwise: bool
    ) -> tuple[_Source, np.ndarray]:
        if otherwise:
            raise ValueError(f"{path} states its own times and order; times, fps, pictures are for folders")
        frames = BagFrames(path, topic, stop)
        self.damage, self.expected_frames = frames.damage, frames.expected
        self.notes, self.reading["topic"] = tuple(frames.notes), frames.topic
        return frames, frames.times_s

    def _describe(self, frames: FrameFiles, notes: Sequence[str]) -> None:
        self.damage, self.expected_frames = frames.damage, frames.expected
        self.notes = (*notes, *frames.notes)
        if frames.value_range is not None:
            self.reading["value_range"] = list(frames.value_range)

    @property
    def name(self) -> str:
        """Name of the file or folder; ``array`` for pictures that came from memory."""
        return "array" if self.path is None else self.path.name

    @property
    def num_frames(self) -> int:
        """Number of frames after the choice of range and stride."""
        return len(self.source_frames)

    @property
    def num_source_frames(self) -> int:
        """Number of readable frames of the source, up to ``stop`` where that was given."""
        return self._source.num_frames

    def __len__(self) -> int:
        return self.num_frames

    def __repr__(self) -> str:
        height, width = self.size
        return f"Video({self.name!r}, {self.num_frames} frames, {width}x{height}, {self.fps:.4g} fps)"

    def __getitem__(self, key: int | slice | Sequence[int]) -> Float[Tensor, "*V H W 3"]:
        """``video[-1]`` is a picture [H, W, 3]; a slice or a list gives [V, H, W, 3]."""
        chosen = np.arange(self.num_frames)[key]
        return self.read(chosen) if chosen.ndim else self.read([int(chosen)])[0]

    _repr_html_ = video_html

    def read(
        self, frames: Sequence[int] | np.ndarray | Tensor, size: tuple[int, int] | None = None
    ) -> Float[Tensor, "V H W 3"]:
        """Frames by their position in this sequence, colour in [0, 1].

        Cheapest in rising order. Frames just read are kept, so that overlapping windows decode nothing twice.

        Args:
            frames: positions, any order.
            size: (height, width) to scale to; None: ``self.size``.
        """
        pictures = [self._frame(int(t), size) for t in frames]
        found = torch.empty(len(pictures), *pictures[0].shape) if pictures else torch.empty(0, *self.size, 3)
        for place, picture in zip(found, pictures, strict=True):
            place.copy_(torch.from_numpy(picture))  # whole numbers to float32 in one pass
        return found.div_(255)

    def __iter__(self) -> Iterator[Float[Tensor, "H W 3"]]:
        return self.frames()

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[Float[Tensor, "H W 3"]]:
        """All frames one by one, colour in [0, 1]."""
        for t in range(self.num_frames):
            yield self.read([t], size)[0]

    def keep_on_the_way(
        self, pictures: KeptPictures, size: tuple[int, int]
    ) -> Iterator[Float[Tensor, "H W 3"]]:
        """All frames one by one as from ``frames``; each is also kept at the other sizes, from the same decode.

        From the end of the pass on these sizes are read from there.
        """
        for t in range(self.num_frames):
            yield self.read([t], size)[0]
            pictures.add([self._frame(t, other) for other in pictures.sizes])
        self.read_from(pictures)

    def read_from(self, pictures: KeptPictures | None) -> None:
        """Take frames of their sizes from kept pictures, which must be complete; None ends that."""
        self._kept = pictures

    def undistort(self, lens: Lens) -> None:
        """From here on, frames are those of the pinhole camera ``lens.pinhole(source_size)``; before any is read.

        Raises:
            ValueError: no pinhole picture fits into the distorted ones.
        """
        fx, fy, cx, cy = lens.pinhole(self.source_size)
        self._lens, self.reading["lens"] = lens, lens.stated()
        self.notes = (
            *self.notes,
            f"the pictures are undistorted when they are read, {lens.distortion.words()}; camera of the undistorted "
            f"ones: fx {fx:.6g}, fy {fy:.6g}, cx {cx:.6g}, cy {cy:.6g} px",
        )

    @property
    def lens(self) -> Lens | None:
        """Of the pictures as they are stored; None where they are taken as they are."""
        return self._lens

    def sha256(self) -> str:
        """Hash of the source: of the bytes of a file, of names and bytes of a folder, of an array's values.

        Raises:
            InputError: the source was changed since it was opened.
        """
        self.check_unchanged()
        self._hash = self._sha256()
        return self._hash

    def check_unchanged(self) -> None:
        """Make sure that the source on disk is the one that was opened.

        Files whose size and times of change are as they were count as unchanged; if they differ, the content decides.

        Raises:
            InputError: the source was changed, replaced or removed since.
        """
        now = {path: _identity(path) for path in self._identities}
        changed = [path for path, identity in now.items() if identity != self._identities[path]]
        if not changed:
            return
        missing = any(now[path] is None for path in changed)
        if missing or self._hash is None or self._sha256() != self._hash:
            raise InputError(
                f"{changed[0]} changed while it was worked on, so the result would mix two videos; nothing was "
                "published; run again on a file that nobody writes to"
            )

    def _files(self) -> list[Path]:
        """The files that the frames come from."""
        if isinstance(self._source, FrameFiles | BagFrames):
            return list(self._source.files)
        return [] if self.path is None else [self.path]

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        if isinstance(self._source, ArraySource):
            digest.update(str((self._source.array.shape, self._source.array.dtype)).encode())
            for frame in self._source.array:
                digest.update(np.ascontiguousarray(frame).tobytes())
        elif isinstance(self._source, FrameFiles | BagFrames):
            for path in self._source.files:
                digest.update(os.fsencode(path.name) + b"\0")
                hash_file(path, digest)
        elif self.path is not None:
            hash_file(self.path, digest)
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the source and of kept pictures."""
        self._source.close()
        self._cache.clear()
        self._cached_bytes = 0
        self._decoded = None

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _frame(self, t: int, size: tuple[int, int] | None) -> np.ndarray:
        if not 0 <= t < self.num_frames:
            raise IndexError(f"expected a frame in 0..{self.num_frames - 1}, got {t}")
        size = size or self.size
        key = (t, size)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if self._kept is not None and size in self._kept.sizes:
            return self._kept.read(t, size)
        # The frame just decoded is kept whole: read at a second size, it would need decoding from its key frame on.
        if self._decoded is None or self._decoded[0] != t:
            picture = self._source.read(int(self.source_frames[t]))
            self._decoded = (t, picture if self._lens is None else self._lens.undistorted(picture))
        frame = resized(self._decoded[1], size)
        self._cache[key] = frame
        self._cached_bytes += frame.nbytes
        while len(self._cache) > 1 and (len(self._cache) > CACHE_FRAMES or self._cached_bytes > CACHE_BYTES):
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return frame


def reopen(place: Path, reading: Mapping[str, Any], stop: int) -> Video:
    """The same frames again, for a result that was made from them.

    Args:
        reading: as the video stated it; empty for results that did not keep it.
        stop: number of frames in use.
    """
    pictures, value_range = reading.get("pictures"), reading.get("value_range")
    lens = None if reading.get("lens") is None else Lens.of(reading["lens"])
    if value_range is not None:
        value_range = (value_range[0], value_range[1])
    if pictures is not None:  # all of them, whatever part is in use: the hash is that of the whole list
        return Video(place, allow_partial=True, pictures=pictures, value_range=value_range, lens=lens)
    if place.is_dir() and "topic" not in reading:  # version 0.1.0 kept no list: all pictures in order of name
        return Video(place, stop=stop, allow_partial=True, pictures=ALL, fps=24.0)
    topic = reading.get("topic")
    return Video(place, stop=stop, allow_partial=True, value_range=value_range, lens=lens, topic=topic)


def _frame_rate(times_s: np.ndarray, source: _Source, stride: int, fps: float | None) -> float:
    steps = np.diff(times_s)
    steps = steps[steps > 0]
    if len(steps):
        # The mean of the usual steps: containers round times, and a gap must not slow the whole clip down.
        usual = steps[np.abs(steps / np.median(steps) - 1) < 0.25]
        return float(1 / (usual.mean() if len(usual) else np.median(steps)))
    base = source.table.fps if isinstance(source, VideoFile) else (fps or 24.0)
    return base / stride


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written to or replaced; None when it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
