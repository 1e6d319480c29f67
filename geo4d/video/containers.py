"""Video files, decoded by what trusts nothing in them.

FFmpeg is given an open file and no way to open another: playlists, concatenation scripts, image patterns and references
inside a container go nowhere.
"""

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np

from geo4d.errors import InputError
from geo4d.video.damage.report import Damage
from geo4d.video.deinterlace import deinterlaced
from geo4d.video.display import HDR_TRANSFERS, displayed_size, to_rgb, turn_of
from geo4d.video.integrity import declared_size, find_damage, has_index
from geo4d.video.limits import MAX_FRAMES, MAX_PIXELS
from geo4d.video.lost import PacketTime, first_lost, gap, time_of
from geo4d.video.sniff import container_of

log = logging.getLogger(__name__)


_ERRORS_SHOWN = 160


@dataclass(frozen=True)
class FrameTable:
    """What one pass over a video found.

    Attributes:
        times_s: [N] presentation times of the readable frames, seconds; not shifted to zero.
        keyframes: [N] True where decoding can start.
        expected: frames that the file should hold, by its header; None when it does not say.
        damage: why fewer than all frames are readable, or why some may be wrong, or None.
        size: (height, width) as displayed: upright, with square pixels.
        fps: average frame rate.
        notes: what was done to the pictures beyond decoding, one sentence each.
    """

    times_s: np.ndarray
    keyframes: np.ndarray
    expected: int | None
    damage: str | None
    size: tuple[int, int]
    fps: float
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """Number of frames that can be shown."""
        return len(self.times_s)


@runtime_checkable
class Watcher(Protocol):
    """Who wants to see the pictures of the first decode."""

    def see(self, index: int, read: Callable[[], np.ndarray]) -> None:
        """Frame ``index``; ``read`` gives what ``VideoFile.read`` will give."""
        ...

    def forget(self) -> None:
        """What was seen so far is not what will be read."""
        ...


class VideoFile:
    """One video file, decoded front to back, with seeks to key frames.

    Args:
        path: a regular file.
        stop: number of frames that will ever be asked for; the scan ends there. None: all.
        watcher: sees the pictures while the file is scanned.
    Raises:
        InputError: not a video file, no video stream, or a declared size beyond ``MAX_PIXELS``.
    """

    def __init__(self, path: Path, stop: int | None = None, watcher: Watcher | None = None) -> None:
        self.path = path
        self._watcher = watcher
        self._container: Any = None
        self._file: BinaryIO | None = None
        self._pictures: Iterator[tuple[Any, Any]] | None = None
        self._next = 0
        self._threads = "AUTO"
        self._interlaced = False
        self._packets: list[PacketTime] | None = None
        self._damage: Damage | None = None
        self._demuxer = container_of(path)
        self._seekable = self._demuxer in ("mp4", "matroska", "avi")
        self.table = self._scan(stop)
        self._watcher = None

    @property
    def num_frames(self) -> int:
        """Number of frames that can be shown."""
        return self.table.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as shown."""
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
            for frame, picture in self._pictures or ():
                position, self._next = self._next, self._next + 1
                if not self._agrees(frame, position):
                    self._seekable = False  # the index of the file is wrong; counting from the front is not
                    self._restart(0)
                    return self.read(index)
                if position == index:
                    return to_rgb(frame, self._ratio, self._transfer, picture)
        except MemoryError:  # no fault of the file
            self.close()
            raise
        except BlockingIOError as error:
            self._without_threads(error)
            return self.read(index)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self.path}: frame {index} cannot be decoded: {first_line(error)}") from error
        raise InputError(f"{self.path}: frame {index} is gone; the file changed while it was read")

    def _without_threads(self, error: BlockingIOError) -> None:
        """FFmpeg found no room for a thread (EAGAIN, which damage never says): decode again without them.

        Raises:
            MemoryError: there were none.
        """
        self.close()
        if self._threads == "NONE":
            raise MemoryError(f"{self.path}: no room for what the decoder needs") from error
        self._threads = "NONE"

    def _claims_too_much(self, error: Exception) -> str | None:
        """FFmpeg says "out of memory" of a damaged size field, too: what is wrong with the file, where something is."""
        import av

        if not isinstance(error, MemoryError) or not isinstance(error, av.error.FFmpegError):
            return None
        damage = find_damage(self.path, self._demuxer, 0)
        return None if damage is None else damage.text

    def close(self) -> None:
        """Let go of the file and of all that was decoded."""
        if self._container is not None:
            self._container.close()
        if self._file is not None:
            self._file.close()
        self._container = self._file = self._pictures = None

    @property
    def _ratio(self) -> Fraction | None:
        """Width of a pixel over its height."""
        return self._stream.sample_aspect_ratio

    @property
    def _transfer(self) -> int:
        """Code of the transfer function; the decoder knows it from the first picture on."""
        return int(self._stream.codec_context.color_trc)

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
                options={"max_pixels": str(MAX_PIXELS), "enable_drefs": "0"},
                **_text_options(av.__version__),
            )
        except (av.error.FFmpegError, MemoryError, OSError, ValueError) as error:
            self.close()
            if (damage := self._claims_too_much(error)) is not None:
                raise InputError(f"{self.path} cannot be opened as a video: {damage}") from None
            if isinstance(error, MemoryError):
                raise  # no fault of the file
            if self._demuxer == "mp4" and not has_index(self.path):
                raise InputError(
                    f"{self.path} holds no index of its pictures (moov): the recording was not finished, or the "
                    "download is not complete; repair it with a recovery tool, or fetch it again"
                ) from error
            raise InputError(f"{self.path} cannot be opened as a video: {first_line(error)}") from error
        self._stream = self._choose_stream()
        context = self._stream.codec_context
        if context is None:
            raise InputError(f"{self.path}: no decoder here for its video stream")
        self._refuse_huge(context.width, context.height)
        self._stream.thread_type = self._threads
        # A damaged picture must be an error; by default FFmpeg paints it over with its neighbours.
        context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
        self._pictures = self._decode()
        self._next = 0

    def _refuse_huge(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            self.close()
            raise InputError(
                f"{self.path} declares pictures of {width} x {height} pixels; "
                f"the limit is {MAX_PIXELS / 1e6:.0f} million pixels; scale it down first"
            )

    def _choose_stream(self) -> Any:
        import av

        kind = av.stream.Disposition
        streams = [s for s in self._container.streams.video if not s.disposition & kind.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self._container.streams if s.type != "video"}))
            self.close()
            raise InputError(f"{self.path} has no video stream" + (f", only {kinds}" if kinds else ""))
        return next((s for s in streams if s.disposition & kind.default), streams[0])

    def _decode(self) -> Iterator[tuple[Any, Any]]:
        """(frame, picture to show) in presentation order; stops at the first damaged one with an error.

        The picture is the frame itself, or what deinterlacing made of it.
        """
        return deinterlaced(self._frames()) if self._interlaced else ((f, f) for f in self._frames())

    def _frames(self) -> Iterator[Any]:
        end = None if self._damage is None else self._damage.position
        stream = self._stream
        for packet in self._container.demux(stream):
            if end is not None and packet.pos is not None and packet.pos >= end:
                # Nothing behind the damage is used; what the decoder still holds lies before it.
                last = type(packet)()
                last.stream, last.time_base = stream, stream.time_base
                yield from self._whole(last)
                return
            if packet.size and packet.is_corrupt:
                raise ValueError(f"picture {self._next} is damaged")
            if self._packets is not None and packet.size:
                self._packets.append(PacketTime(packet.pts, packet.dts, bool(packet.is_discard)))
            yield from self._whole(packet)

    def _whole(self, packet: Any) -> Iterator[Any]:
        for frame in packet.decode():
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
        pictures = self._decode()
        for pair in pictures:
            if pair[0].time is not None and pair[0].time > wanted - 1e-6:
                self._pictures, self._next = itertools.chain([pair], pictures), start
                return
        self._open()

    def _agrees(self, frame: Any, position: int) -> bool:
        """Whether a decoded frame is the one that the scan saw at ``position``."""
        if not self._seekable or frame.time is None or position >= self.table.num_frames:
            return True
        return bool(abs(frame.time - self.table.times_s[position]) < 1e-6)

    def _start_for(self, index: int) -> int | None:
        """Where decoding must restart to reach ``index``: None goes on from here, 0 reopens, k seeks."""
        if self._pictures is not None and self._next <= index:
            keys = np.flatnonzero(self.table.keyframes[self._next + 1 : index + 1])
            if not len(keys) or keys[-1] < 64:
                return None
        times = self.table.times_s
        if not self._seekable or not (np.diff(times) > 0).all():
            return 0
        # Deinterlacing looks at the picture before, too: the pictures must not depend on where decoding began.
        last = index if self._interlaced else index + 1
        keys = np.flatnonzero(self.table.keyframes[:last])
        return int(keys[-1]) if len(keys) else 0

    def _scan(self, stop: int | None) -> FrameTable:
        """Decode everything once: only that says how many frames are readable, and when each is shown."""
        import av

        self._open()
        stream = self._stream
        if self._damage is None:
            self._damage = find_damage(self.path, self._demuxer, int(stream.id))
        expected = stream.frames or None
        times: list[float] = []
        stated: list[int | None] = []
        keyframes: list[bool] = []
        size: tuple[int, int] | None = None
        damage: str | None = None
        whole = False
        interlaced = 0
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._packets = []
        self._unsee()
        try:
            for frame, picture in self._pictures or ():
                shape = (frame.width, frame.height, turn_of(frame))
                if size is None:
                    size, first = displayed_size(frame, self._ratio), shape
                    self._refuse_huge(size[1], size[0])
                elif shape != first:
                    damage = f"the picture size or orientation changes at frame {len(times)}"
                    break
                times.append(time_of(frame, times, rate))
                stated.append(frame.pts)
                keyframes.append(bool(frame.key_frame))
                interlaced += bool(frame.interlaced_frame)
                self._next += 1
                self._show(frame, picture, len(times) - 1)
                if len(times) == stop:
                    break
                if len(times) > MAX_FRAMES:
                    raise InputError(f"{self.path} has more than {MAX_FRAMES} frames; cut it into pieces")
            else:
                whole = True
        except InputError as error:
            text = str(error)
            self.close()
            raise error if text.startswith(str(self.path)) else InputError(f"{self.path}: {text}") from error
        except BlockingIOError as error:
            self._without_threads(error)
            return self._scan(stop)
        except (av.error.FFmpegError, MemoryError, OSError, ValueError) as error:
            damage = self._claims_too_much(error)
            if isinstance(error, MemoryError) and damage is None:
                self.close()
                raise  # no fault of the file
            damage = damage or first_line(error)
        if damage is not None and self._threads == "AUTO":
            # Frame threads lose the pictures in flight when one fails; without them the count is exact.
            self._threads = "NONE"
            return self._scan(stop)
        lost = first_lost(stated, self._packets, at_end=whole)
        self._packets = None
        if lost is not None:
            damage = f"picture {lost} gives nothing to show"
            times, keyframes = times[:lost], keyframes[:lost]
        elif damage is not None and self._damage is not None:
            damage = f"{self._damage.text}; {damage}"
        elif damage is None and whole:
            damage = self._missing(len(times), expected) or gap(times, self._demuxer)
        transfer = self._transfer
        self.close()
        if size is None or not times:
            self._refuse_huge(*(declared_size(self.path, self._demuxer) or (0, 0)))
            raise InputError(
                f"{self.path}: none of {expected or 'its'} frames is readable"
                + (f": {damage}" if damage else "")
            )
        ordered = np.asarray(times, np.float64)
        if (np.diff(ordered) < 0).any():
            log.warning("%s: presentation times go backwards; frames are used in the stored order", self.path)
        self._interlaced = interlaced > 0
        if self._interlaced:
            self._unsee()  # these pictures were seen before they are deinterlaced
        notes = self._notes(interlaced, len(times), transfer)
        return FrameTable(ordered, np.asarray(keyframes), expected, damage, size, float(rate), notes)

    def _show(self, frame: Any, picture: Any, index: int) -> None:
        """Let the watcher see a picture; one that cannot be shown is an error when it is read, not of the scan."""
        import av

        if self._watcher is None:
            return
        try:
            self._watcher.see(index, lambda: to_rgb(frame, self._ratio, self._transfer, picture))
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError, ValueError):
            self._unsee()
            self._watcher = None

    def _unsee(self) -> None:
        if self._watcher is not None:
            self._watcher.forget()

    def _missing(self, readable: int, expected: int | None) -> str | None:
        """What is wrong with the structure of the file, where it costs pictures."""
        if self._damage is None:
            return None
        # An index in front lists all pictures: what is missing behind them is none.
        if self._demuxer == "mp4" and expected is not None and readable >= expected:
            return None
        return self._damage.text

    @staticmethod
    def _notes(interlaced: int, readable: int, transfer: int) -> tuple[str, ...]:
        notes = []
        if interlaced:
            notes.append(f"{interlaced} of {readable} frames are interlaced; deinterlaced (bwdif)")
        if transfer in HDR_TRANSFERS:
            notes.append(
                f"HDR ({HDR_TRANSFERS[transfer]}, BT.2020) mapped to SDR (BT.709) with white at 203 cd/m2"
            )
        return tuple(notes)


def _text_options(version: str) -> dict[str, Any]:
    """How PyAV is told to take metadata that are not UTF-8; from 19 on it always takes them."""
    return {"metadata_errors": "replace"} if int(version.split(".")[0]) < 19 else {}


def _refuse_reference(url: str, flags: int, options: dict) -> Any:
    raise PermissionError(f"refused to open {url!r}: a video may not refer to other files")


def first_line(error: BaseException) -> str:
    """What an error of the decoder says, on one line and cut to a readable length."""
    text = str(error).split("; last error log:")
    detail = text[-1].strip() if len(text) > 1 else str(getattr(error, "strerror", None) or error)
    return " ".join(detail.split())[:_ERRORS_SHOWN]
