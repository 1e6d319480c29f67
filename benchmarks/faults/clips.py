"""Small clips of a textured plane that slides by, in any container, and what can be done to their bytes."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.faults.harness import forked

CONTAINERS = {
    "mp4": ("mpeg4", "yuv420p"),
    "mkv": ("mpeg4", "yuv420p"),
    "webm": ("libvpx-vp9", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "ts": ("mpeg2video", "yuv420p"),
    "flv": ("flv", "yuv420p"),
    "mov": ("mjpeg", "yuvj420p"),
    "gif": ("gif", "rgb8"),
}
"""Suffix -> codec and pixel format."""

PICTURES = ("png", "jpg", "tif", "webp", "bmp", "ppm")


def frames(count: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> Iterator[np.ndarray]:
    """uint8 RGB [H, W, 3]."""
    rng = np.random.default_rng(seed)
    height, width = size
    plane = np.kron(
        rng.integers(0, 255, (height // 4 + 40, width // 4 + 100, 3)).astype(np.uint8),
        np.ones((4, 4, 1), np.uint8),
    )
    for t in range(count):
        x, y = (2 * t) % (plane.shape[1] - width), t % 40
        yield plane[y : y + height, x : x + width].copy()


def write(
    path: Path,
    count: int,
    *,
    size: tuple[int, int] = (48, 64),
    codec: str | None = None,
    pixels: str | None = None,
    rate: int = 25,
    times_ms: Sequence[int] | None = None,
    pictures: Iterable[np.ndarray] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a clip; codec and pixel format are those of the suffix unless given.

    It is done in a fork: the encoder's threads would be gone in later forks of this process, where what waits for them
    hangs.
    """

    def encode() -> None:
        _write(path, count, size, codec, pixels, rate, times_ms, pictures, container_options)

    ended = forked(encode, timeout=3600)
    if ended.code != 0:
        raise RuntimeError(f"{path} was not written: {ended.last}")
    return path


def _write(
    path: Path,
    count: int,
    size: tuple[int, int],
    codec: str | None,
    pixels: str | None,
    rate: int,
    times_ms: Sequence[int] | None,
    pictures: Iterable[np.ndarray] | None,
    container_options: dict[str, str] | None,
) -> None:
    import av

    default_codec, default_pixels = CONTAINERS[path.suffix[1:]]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec or default_codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], pixels or default_pixels
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t, picture in enumerate(frames(count, size) if pictures is None else pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[t], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def damage(data: bytes, kind: int, rng: np.random.Generator) -> bytes:
    """One of four kinds: bits flipped anywhere, bytes of the header replaced, cut off, or a piece put in."""
    changed = bytearray(data)
    if kind == 0:
        for at in rng.integers(0, len(changed), int(rng.integers(1, 40))):
            changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        for at in rng.integers(0, min(len(changed), 600), int(rng.integers(1, 8))):
            changed[at] = int(rng.integers(256))
    elif kind == 2:
        del changed[int(rng.integers(12, len(changed))) :]
    else:
        at = int(rng.integers(12, len(changed) - 8))
        changed[at : at + 4] = bytes(rng.choice([0, 255, 127], 4).astype(np.uint8))
        changed[at:at] = rng.bytes(int(rng.integers(1, 64)))
    return bytes(changed)


_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turned(data: bytes, degrees: int) -> bytes:
    """An mp4 whose track header asks players to turn the picture clockwise."""
    a, b, c, d = (65536 * value for value in _TURNS[degrees])
    at = data.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + 36 :]
