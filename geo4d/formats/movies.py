"""Write a preview movie with a freely licensed codec (VP9 or AV1; never x264 or x265)."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import OutputError
from geo4d.formats.files import new_file

_CODECS = ("libvpx-vp9", "libsvtav1", "libaom-av1")
_OPTIONS = {
    "libvpx-vp9": {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
    "libsvtav1": {"crf": "35", "preset": "9"},
    "libaom-av1": {"crf": "32", "cpu-used": "8", "usage": "realtime"},
}


def movie_codec() -> str:
    """The first free codec that the installed PyAV can encode.

    Raises:
        OutputError: it has none of them.
    """
    import av

    for name in _CODECS:
        if name in av.codecs_available:
            return name
    raise OutputError(
        f"expected a PyAV with one of {', '.join(_CODECS)}, found none; previews cannot be written"
    )


def save_movie(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Encode uint8 RGB frames [H, W, 3] of one size as mp4; odd sizes are padded by one pixel.

    Returns:
        number of frames written.
    Raises:
        ValueError: no frames.
        OutputError: no free codec, or the file cannot be written.
    """
    import av

    codec = movie_codec()
    rate = Fraction(fps).limit_denominator(1001)
    count = 0
    with new_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            padded = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=_OPTIONS[codec])
                stream.height, stream.width = padded.shape[:2]
                stream.pix_fmt = "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            picture.pts = count
            for packet in stream.encode(picture):
                container.mux(packet)
            count += 1
        if stream is None:
            raise ValueError("expected at least one frame for the movie, got none")
        for packet in stream.encode(None):
            container.mux(packet)
    return count
