"""Animated WebP and PNG: every frame, put together as the formats say, with its time.

A frame of such a file is a rectangle that is laid over the canvas, or replaces a part of it. Each rectangle is wrapped
as a still picture of its own for OpenCV, so one canvas is in memory, not the whole animation, and any version of OpenCV
will do.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

ZERO_DELAY_S = 0.1
"""How long a frame without a duration is shown, as browsers do."""


@dataclass(frozen=True)
class _Part:
    """One frame: its rectangle, its still picture, and what becomes of the canvas afterwards.

    Attributes:
        still: a whole PNG or WebP of the rectangle.
        left, top, width, height: of the rectangle, pixels.
        duration_s: how long it is shown.
        over: laid over the canvas by its alpha; otherwise it replaces the rectangle.
        dispose: what the rectangle becomes before the next frame.
    """

    still: bytes
    left: int
    top: int
    width: int
    height: int
    duration_s: float
    over: bool
    dispose: Literal["keep", "clear", "restore"]


class Animation:
    """Frames of an animation, cheapest in rising order."""

    def __init__(self, parts: list[_Part], size: tuple[int, int]) -> None:
        for part in parts:
            inside = part.left + part.width <= size[1] and part.top + part.height <= size[0]
            if not inside or not part.width or not part.height:
                raise ValueError("a frame lies outside the canvas")
        self._parts, self._size = parts, size
        self._canvas: np.ndarray | None = None
        self._before: np.ndarray | None = None
        self._next = 0
        durations = [part.duration_s or ZERO_DELAY_S for part in parts]
        self.times_s = np.concatenate([[0.0], np.cumsum(durations)[:-1]])

    @property
    def num_frames(self) -> int:
        """Number of pictures."""
        return len(self._parts)

    def read(self, index: int) -> np.ndarray | None:
        """Frame ``index`` as [H, W, 4] (blue, green, red, alpha); None when it cannot be decoded."""
        if index < self._next - 1:
            self._canvas, self._next = None, 0
        while self._next <= index:
            if not self._draw(self._next):
                return None
            self._next += 1
        return None if self._canvas is None else self._canvas.copy()

    def _draw(self, index: int) -> bool:
        part = self._parts[index]
        picture = _decode_still(part.still)
        if picture is None or picture.shape[:2] != (part.height, part.width):
            return False
        if self._canvas is None or index == 0:
            self._canvas = np.zeros((*self._size, 4), picture.dtype)
        else:
            self._dispose(self._parts[index - 1])
        region = _region(part)
        self._before = self._canvas[region].copy() if part.dispose == "restore" else None
        self._canvas[region] = _over(picture, self._canvas[region]) if part.over else picture
        return True

    def _dispose(self, last: _Part) -> None:
        assert self._canvas is not None
        if last.dispose == "clear":
            self._canvas[_region(last)] = 0
        elif last.dispose == "restore" and self._before is not None:
            self._canvas[_region(last)] = self._before


def find_animation(data: bytes, kind: str) -> Animation | None:
    """The animation in a PNG or WebP file; None when it is a still picture.

    Raises:
        ValueError: (or ``struct.error``) what describes the frames is damaged.
    """
    return _find_apng(data) if kind == "png" else _find_webp(data)


def _region(part: _Part) -> tuple[slice, slice]:
    return slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)


def _decode_still(still: bytes) -> np.ndarray | None:
    """[H, W, 4], blue first; opaque where the picture has no alpha."""
    import cv2

    image = cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.shape[2] == 2:
        image = image[..., [0, 0, 0, 1]]
    if image.shape[2] == 3:
        opaque = np.full((*image.shape[:2], 1), _most(image), image.dtype)
        image = np.concatenate([image, opaque], axis=-1)
    return image


def _most(image: np.ndarray) -> int:
    """The value of white, and of opaque."""
    return 65535 if image.dtype == np.uint16 else 255


def _over(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Source over target, both [h, w, 4] with straight alpha."""
    most = _most(source)
    a = source[..., 3:].astype(np.float64) / most
    b = target[..., 3:].astype(np.float64) / most * (1 - a)
    alpha = a + b
    colour = (source[..., :3] * a + target[..., :3] * b) / np.where(alpha > 0, alpha, 1)
    return np.rint(np.concatenate([colour, alpha * most], axis=-1)).astype(source.dtype)


# PNG ------------------------------------------------------------------------------------------------------------------


def _chunk(name: bytes, payload: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def _find_apng(data: bytes) -> Animation | None:
    header, shared = b"", b""
    expected: int | None = None
    parts: list[_Part] = []
    control: bytes | None = None
    pieces: list[bytes] = []
    sequence = 0

    def finish() -> None:
        if control is None:
            return
        if not pieces:
            raise ValueError("a frame without a picture")
        width, height, left, top, number, base, dispose, blend = struct.unpack(">IIIIHHBB", control[4:26])
        if dispose == 2 and not parts:
            dispose = 1  # the standard: there is nothing before the first frame
        still = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">II", width, height) + header[8:])
        still += shared + b"".join(_chunk(b"IDAT", piece) for piece in pieces) + _chunk(b"IEND", b"")
        kinds: tuple[Literal["keep", "clear", "restore"], ...] = ("keep", "clear", "restore")
        duration = number / (base or 100)
        parts.append(_Part(still, left, top, width, height, duration, blend == 1, kinds[dispose]))

    for name, payload in _chunks(data[8:], ">", name_first=False):
        if name == b"IHDR":
            header = payload
        elif name in (b"PLTE", b"tRNS"):
            shared += _chunk(name, payload)
        elif name == b"acTL":
            (expected,) = struct.unpack(">I", payload[:4])
        elif name in (b"fcTL", b"fdAT") and expected is not None:
            if int.from_bytes(payload[:4], "big") != sequence:
                raise ValueError("frames are out of order")
            sequence += 1
            if name == b"fcTL":
                finish()
                control, pieces = payload, []
            else:
                pieces.append(payload[4:])
        elif name == b"IDAT" and control is not None:
            pieces.append(payload)
    if expected is None:
        return None
    finish()
    if len(parts) != expected:
        raise ValueError(f"{expected} frames announced, {len(parts)} there")
    height, width = (int.from_bytes(header[at : at + 4], "big") for at in (4, 0))
    return Animation(parts, (height, width))


def _chunks(data: bytes, order: str, *, name_first: bool) -> Iterator[tuple[bytes, bytes]]:
    """(name, payload) of PNG chunks (length first, check sum behind) or RIFF chunks (name first, padded to even)."""
    position = 0
    while position + 8 <= len(data):
        first, second = data[position : position + 4], data[position + 4 : position + 8]
        name, size = (first, second) if name_first else (second, first)
        (length,) = struct.unpack(order + "I", size)
        start = position + 8
        if start + length > len(data):
            raise ValueError("a chunk is cut")
        yield name, data[start : start + length]
        position = start + length + (length % 2 if name_first else 4)


# WebP -----------------------------------------------------------------------------------------------------------------


def _find_webp(data: bytes) -> Animation | None:
    if data[12:16] != b"VP8X" or not data[20] & 0x02:
        return None
    canvas = (int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1)
    parts: list[_Part] = []
    for name, payload in _chunks(data[12:], "<", name_first=True):
        if name != b"ANMF":
            continue
        left, top, width, height, milliseconds = (
            int.from_bytes(payload[at : at + 3], "little") for at in (0, 3, 6, 9, 12)
        )
        flags = payload[15]
        parts.append(
            _Part(
                _still_webp(payload[16:], width + 1, height + 1),
                2 * left,
                2 * top,
                width + 1,
                height + 1,
                milliseconds / 1000,
                not flags & 2,
                "clear" if flags & 1 else "keep",
            )
        )
    if not parts:
        raise ValueError("an animation without frames")
    return Animation(parts, canvas)


def _still_webp(data: bytes, width: int, height: int) -> bytes:
    """The chunks of one frame as a file of its own."""
    chunks = dict(_chunks(data, "<", name_first=True))
    body = b""
    if b"ALPH" in chunks:
        body += _riff(
            b"VP8X", b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        )
    for name in (b"ALPH", b"VP8 ", b"VP8L"):
        if name in chunks:
            body += _riff(name, chunks[name])
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _riff(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
