"""Small clips that tests write; needs no torch, so that the decoder is tested where torch cannot be installed."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def pictures(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """[T, H, W, 3] uint8: smooth texture that wanders, so that every frame is another and codecs keep it."""
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        frames[t, ..., 0] = 128 + 90 * np.sin((columns + 3 * t) / 6)
        frames[t, ..., 1] = 128 + 90 * np.sin((rows + columns + 2 * t) / 9)
        frames[t, ..., 2] = 128 + 90 * np.cos((rows - t) / 7)
    return frames


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "mpeg4",
    *,
    container: str | None = None,
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    gop: int = 12,
    times_ms: list[int] | None = None,
    metadata: dict[str, str] | None = None,
    colours: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write frames, [T, H, W, 3] RGB, or [T, H, W] in the pixel format itself."""
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if codec not in ("gif", "ffv1", "rawvideo"):
            stream.bit_rate = 800_000
        stream.options = dict(options or {})
        for name, value in (colours or {}).items():
            setattr(stream.codec_context, name, value)
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t, picture in enumerate(frames):
            frame = (
                picture
                if isinstance(picture, av.VideoFrame)
                else av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            )
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[t], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path
