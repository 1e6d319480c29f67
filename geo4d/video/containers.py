"""Video files: what a file is by its first bytes, and decoding that trusts nothing in it.

The demuxer is chosen here from the content, never by FFmpeg from the name, and FFmpeg is given an open file and no way
to open another: playlists, concatenation scripts, image patterns and references inside a container go nowhere.
"""

import itertools
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geo4d.errors import InputError

log = logging.getLogger(__name__)

MAX_PIXELS = 2**26
"""Largest picture that is decoded (8192 x 8192); a larger declared size is refused before anything is allocated."""

MAX_FRAMES = 2_000_000
"""Longest sequence that is accepted: 18 hours at 30 frames per second."""

_SNIFF_BYTES = 4096
_ERRORS_SHOWN = 160


def sniff_container(head: bytes) -> str | None:
    """FFmpeg demuxer for a file that starts with ``head``, or None when it is not a video container we open.

    An allow-list: text formats, among them every playlist, and still images have no entry.
    """
    if len(head) < 12:
        return "gif" if head[:6] in (b"GIF87a", b"GIF89a") else None
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for magic, demuxer in (
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"OggS", "ogg"),
        (b"FLV\x01", "flv"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpegvideo"),
        (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"),
        (b"DKIF", "ivf"),
        (b"YUV4MPEG2", "yuv4mpegpipe"),
    ):
        if head.startswith(magic):
            return demuxer
    if len(head) >= 377 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    if len(head) >= 389 and head[4] == head[196] == head[388] == 0x47:
        return "mpegts"  # packets of 192 bytes, as camcorders write them
    start = 4 if head[:4] == b"\x00\x00\x00\x01" else 3 if head[:3] == b"\x00\x00\x01" else 0
    if start and head[start] & 0x9F == 0x07:
        return "h264"
    if start and (head[start] >> 1) & 0x3F in (32, 33):
        return "hevc"
    return None


@dataclass(frozen=True)
class FrameTable:
    """What one pass over a video found.

    Attributes:
        times_s: [N] presentation times of the readable frames, seconds; not shifted to zero.
        keyframes: [N] True where decoding can start.
        expected: frames that the file should hold, by its header; None when it does not say.
        damage: why fewer than all frames are readable, or None.
        size: (height, width) as displayed: rotated, with square pixels.
        fps: average frame rate.
    """

    times_s: np.ndarray
    keyframes: np.ndarray
    expected: int | None
    damage: str | None
    size: tuple[int, int]
    fps: float

    @property
    def num_frames(self) -> int:
        return len(self.times_s)


class VideoFile:
    """One video file, decoded front to back, with seeks to key frames.

    Args:
        path: a regular file.
        stop: number of frames that will ever be asked for; the scan ends there. None: all.
    Raises:
        InputError: not a video file, no video stream, or a declared size beyond ``MAX_PIXELS``.
    """

    def __init__(self, path: Path, stop: int | None = None) -> None:
        self.path = path
        self._container: Any = None
        self._file: BinaryIO | None = None
        self._frames: Iterator[Any] | None = None
        self._next = 0
        self._threads = "AUTO"
        self._demuxer = self._sniff()
        self._seekable = self._demuxer in ("mp4", "matroska", "avi")
        self.table = self._scan(stop)

    @property
    def num_frames(self) -> int:
        return self.table.num_frames

    @property
    def size(self) -> tuple[int, int]:
        return self.table.size

    def read(self, index: int) -> np.ndarray:
        """Frame ``index`` as displayed: [H, W, 3] uint8.

        Raises:
            InputError: the frame cannot be decoded any more (the file changed).
        """
        if not 0 <= index < self.table.num_frames:
            raise IndexError(f"expected a frame in 0..{self.table.num_frames - 1}, got {index}")
        import av

        try:
            start = self._start_for(index)
            if start is not None:
                self._restart(start)
            for frame in self._frames or ():
                position, self._next = self._next, self._next + 1
                if not self._agrees(frame, position):
                    self._seekable = False  # the index of the file is wrong; counting from the front is not
                    self._restart(0)
                    return self.read(index)
                if position == index:
                    return self._to_rgb(frame)
        except MemoryError:  # no fault of the file
            self.close()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self.path}: frame {index} cannot be decoded: {_first_line(error)}") from error
        raise InputError(f"{self.path}: frame {index} is gone; the file changed while it was read")

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        if self._file is not None:
            self._file.close()
        self._container = self._file = self._frames = None

    def _sniff(self) -> str:
        try:
            with self.path.open("rb") as file:
                head = file.read(_SNIFF_BYTES)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        if not head:
            raise InputError(f"{self.path} is empty (0 bytes); expected a video file")
        demuxer = sniff_container(head)
        if demuxer is None:
            raise InputError(f"{self.path} is not a video file that geo4d opens: {_describe(head)}")
        return demuxer

    def _open(self) -> None:
        import av

        # PyAV's own log callback takes the GIL inside FFmpeg's threads and can lock up when a decoder is closed.
        av.logging.restore_default_callback()
        av.logging.set_libav_level(av.logging.PANIC)
        self.close()
        try:
            self._file = self.path.open("rb")
            self._container = av.open(
                self._file,
                format=self._demuxer,
                io_open=_refuse_reference,
                metadata_errors="replace",
                options={"max_pixels": str(MAX_PIXELS), "enable_drefs": "0"},
            )
        except MemoryError:  # no fault of the file
            self.close()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.close()
            raise InputError(f"{self.path} cannot be opened as a video: {_first_line(error)}") from error
        self._stream = self._choose_stream()
        context = self._stream.codec_context
        if context is None:
            raise InputError(f"{self.path}: no decoder here for its video stream")
        width, height = context.width, context.height
        if width * height > MAX_PIXELS:
            self.close()
            raise InputError(
                f"{self.path} declares pictures of {width} x {height} pixels; "
                f"the limit is {MAX_PIXELS / 1e6:.0f} million pixels; scale it down first"
            )
        self._stream.thread_type = self._threads
        # A damaged picture must be an error; by default FFmpeg paints it over with its neighbours.
        context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
        self._frames = self._decode()
        self._next = 0

    def _choose_stream(self) -> Any:
        import av

        pictures = int(av.stream.Disposition.attached_pic)
        streams = [s for s in self._container.streams.video if not int(s.disposition) & pictures]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self._container.streams if s.type != "video"}))
            self.close()
            raise InputError(f"{self.path} has no video stream" + (f", only {kinds}" if kinds else ""))
        default = int(av.stream.Disposition.default)
        return next((s for s in streams if int(s.disposition) & default), streams[0])

    def _decode(self) -> Iterator[Any]:
        """Frames in presentation order; stops at the first damaged one with an error."""
        for frame in self._container.decode(self._stream):
            if frame.is_corrupt:
                raise ValueError(f"picture {self._next} is damaged")
            yield frame

    def _restart(self, start: int) -> None:
        """Go on decoding at key frame ``start``, or at the front when 0."""
        self._open()
        if start == 0:
            return
        wanted = float(self.table.times_s[start])
        ticks = round(wanted / float(self._stream.time_base))
        self._container.seek(ticks, stream=self._stream, backward=True)
        frames = self._decode()
        for frame in frames:
            if frame.time is not None and frame.time > wanted - 1e-6:
                self._frames, self._next = itertools.chain([frame], frames), start
                return
        self._open()

    def _agrees(self, frame: Any, position: int) -> bool:
        """Whether a decoded frame is the one that the scan saw at ``position``."""
        if not self._seekable or frame.time is None or position >= self.table.num_frames:
            return True
        return bool(abs(frame.time - self.table.times_s[position]) < 1e-6)

    def _start_for(self, index: int) -> int | None:
        """Where decoding must restart to reach ``index``: None goes on from here, 0 reopens, k seeks."""
        if self._frames is not None and self._next <= index:
            keys = np.flatnonzero(self.table.keyframes[self._next + 1 : index + 1])
            if not len(keys) or keys[-1] < 64:
                return None
        times = self.table.times_s
        if not self._seekable or not (np.diff(times) > 0).all():
            return 0
        keys = np.flatnonzero(self.table.keyframes[: index + 1])
        return int(keys[-1]) if len(keys) else 0

    def _scan(self, stop: int | None) -> FrameTable:
        """Decode everything once: only that says how many frames are readable, and when each is shown."""
        import av

        self._open()
        stream = self._stream
        expected = stream.frames or None
        times: list[float] = []
        keyframes: list[bool] = []
        size: tuple[int, int] | None = None
        damage: str | None = None
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        try:
            for frame in self._frames or ():
                if size is None:
                    size = _displayed_size(frame, stream)
                    first = (frame.width, frame.height)
                elif (frame.width, frame.height) != first:
                    damage = f"the picture size changes from {first} to {(frame.width, frame.height)}"
                    break
                times.append(_time_of(frame, times, rate))
                keyframes.append(bool(frame.key_frame))
                self._next += 1
                if len(times) == stop:
                    break
                if len(times) > MAX_FRAMES:
                    raise InputError(f"{self.path} has more than {MAX_FRAMES} frames; cut it into pieces")
        except MemoryError:  # no fault of the file
            self.close()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            damage = _first_line(error)
        if damage is not None and self._threads == "AUTO":
            # Frame threads lose the pictures in flight when one fails; without them the count is exact.
            self._threads = "NONE"
            return self._scan(stop)
        if damage is None and stop is None:
            damage = self._missing(len(times), expected)
        if size is None or not times:
            self.close()
            raise InputError(
                f"{self.path}: none of {expected or 'its'} frames is readable"
                + (f": {damage}" if damage else "")
            )
        self.close()
        ordered = np.asarray(times, np.float64)
        if (np.diff(ordered) < 0).any():
            log.warning("%s: presentation times go backwards; frames are used in the stored order", self.path)
        return FrameTable(ordered, np.asarray(keyframes), expected, damage, size, float(rate))

    def _missing(self, readable: int, expected: int | None) -> str | None:
        """Whether the file ends before its content does."""
        missing = missing_bytes(self.path, self._demuxer)
        if not missing or (expected is not None and readable >= expected):
            return None
        return f"the file ends {missing} bytes early"

    def _to_rgb(self, frame: Any) -> np.ndarray:
        """[H, W, 3] uint8 as displayed: alpha over black, rotation applied, square pixels."""
        import cv2

        has_alpha = any(component.is_alpha for component in frame.format.components)
        unspecified = (
            int(frame.colorspace) == 2 and frame.height >= 720
        )  # such files mean BT.709, as players do
        array = frame.to_ndarray(
            format="rgba" if has_alpha else "rgb24", src_colorspace="ITU709" if unspecified else None
        )
        if has_alpha:
            alpha = array[..., 3:].astype(np.uint16)
            array = ((array[..., :3] * alpha + 127) // 255).astype(np.uint8)
        width = _square_width(frame, self._stream)
        if width != frame.width:
            array = cv2.resize(array, (width, frame.height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(np.rot90(array, _quarter_turns(frame)))


def missing_bytes(path: Path, demuxer: str) -> int:
    """By how many bytes a container ends before the size that it declares; 0 when complete or not stated."""
    total = path.stat().st_size
    with path.open("rb") as file:
        if demuxer == "mp4":
            position = 0
            while position + 8 <= total:
                file.seek(position)
                size, _ = struct.unpack(">I4s", file.read(8))
                if size == 1:
                    size = int.from_bytes(file.read(8), "big")
                elif size == 0:
                    return 0
                if size < 8:
                    return 0
                position += size
            return max(position - total, 0)
        head = file.read(_SNIFF_BYTES)
        if demuxer == "avi":
            return max(int.from_bytes(head[4:8], "little") + 8 - total, 0)
        if demuxer == "matroska":
            start = head.find(b"\x18\x53\x80\x67")
            if start < 0 or start + 12 > len(head):
                return 0
            length = 9 - head[start + 4].bit_length()
            if not 1 <= length <= 8:
                return 0
            field = int.from_bytes(head[start + 4 : start + 4 + length], "big") & ((1 << 7 * length) - 1)
            if field == (1 << 7 * length) - 1:
                return 0  # unknown size: a live recording
            return max(start + 4 + length + field - total, 0)
        if demuxer == "gif":
            file.seek(max(total - 64, 0), os.SEEK_SET)
            return 0 if b"\x3b" in file.read() else 1
    return 0


def _refuse_reference(url: str, flags: int, options: dict) -> Any:
    raise PermissionError(f"refused to open {url!r}: a video may not refer to other files")


def _time_of(frame: Any, before: list[float], rate: Fraction) -> float:
    if frame.time is not None:
        return float(frame.time)
    return before[-1] + float(1 / rate) if before else 0.0


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that put the decoded picture upright."""
    return round(frame.rotation / 90) % 4


def _square_width(frame: Any, stream: Any) -> int:
    """Width of the picture with square pixels."""
    ratio = stream.sample_aspect_ratio or 1
    if not Fraction(1, 4) <= ratio <= 4:
        return frame.width
    return max(round(frame.width * ratio), 1)


def _displayed_size(frame: Any, stream: Any) -> tuple[int, int]:
    height, width = frame.height, _square_width(frame, stream)
    return (width, height) if _quarter_turns(frame) % 2 else (height, width)


def _describe(head: bytes) -> str:
    """What a file that is no video looks like, in a few words."""
    known = {
        b"#EXTM3U": "it is a playlist, and those are not followed",
        b"ffconcat": "it is a concatenation script, and those are not followed",
        b"[playlist]": "it is a playlist, and those are not followed",
        b"%PDF": "it is a PDF document",
        b"PK\x03\x04": "it is a zip archive",
        b"ID3": "it is an audio file",
        b"fLaC": "it is an audio file",
        b"\x7fELF": "it is a program",
        b"<": "it is XML or HTML",
    }
    for magic, text in known.items():
        if head.startswith(magic):
            return text
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "it is an audio file"
    text_bytes = set(range(32, 127)) | {9, 10, 13}
    return "it is text" if all(byte in text_bytes for byte in head[:512]) else "unknown content"


def _first_line(error: BaseException) -> str:
    text = str(error).split("; last error log:")
    detail = text[-1].strip() if len(text) > 1 else str(getattr(error, "strerror", None) or error)
    return " ".join(detail.split())[:_ERRORS_SHOWN]
