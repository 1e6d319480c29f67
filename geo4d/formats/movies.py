"""Write a preview movie with a freely licensed codec (VP9 or AV1; never x264 or x265)."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import OutputError
from geo4d.formats.files import new_file

_TICKS = 90_000
"""Time base of the files, per second: divides by all usual frame rates."""

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


def save_movie(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float | None = None,
    *,
    times_s: Sequence[float] | np.ndarray | None = None,
) -> int:
    """Encode uint8 RGB frames [H, W, 3] of one size as mp4; odd sizes are padded by one pixel.

    Args:
        fps: constant frame rate, when there are no ``times_s``.
        times_s: presentation time of every frame in seconds, at any spacing; the movie starts at the first one. A time
            that does not grow (frames out of order) is put one usual step after its neighbour. The last frame lasts one
            usual step.
    Returns:
        number of frames written.
    Raises:
        ValueError: no frames, more frames than times, or neither or both of ``fps`` and ``times_s``.
        OutputError: no free codec, or the file cannot be written.
    """
    import av

    if (fps is None) == (times_s is None):
        raise ValueError("expected either fps or times_s for the movie, got neither or both")
    codec = movie_codec()
    spans = _constant_spans(fps) if fps is not None else _measured_spans(np.asarray(times_s, np.float64))
    rate = Fraction(fps if fps is not None else usual_rate(np.asarray(times_s, np.float64)))
    rate = rate.limit_denominator(1001) or Fraction(1, 1001)
    durations: dict[int, int] = {}
    count = 0

    def mux(packets: Iterable[Any]) -> None:
        for packet in packets:
            # Encoders number packets in their own time base; the file keeps ticks, and how long each picture stays.
            packet.duration = durations.pop(packet.pts, packet.duration)
            container.mux(packet)

    with new_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            padded = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=_OPTIONS[codec])
                stream.height, stream.width = padded.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = stream.time_base = Fraction(1, _TICKS)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            span = next(spans, None)
            if span is None:
                raise ValueError(f"expected a time for every frame, got {count} times for more frames")
            picture.pts, durations[span[0]] = span
            picture.time_base = Fraction(1, _TICKS)
            mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise ValueError("expected at least one frame for the movie, got none")
        mux(stream.encode(None))
    return count


def usual_rate(times_s: np.ndarray) -> float:
    """Frames per second of the median step that grows; 25 for a single frame."""
    steps = np.diff(times_s)
    steps = steps[steps > 0]
    return float(1 / np.median(steps)) if steps.size else 25.0


def _constant_spans(fps: float) -> Iterator[tuple[int, int]]:
    """Start and duration of every frame, ticks."""
    starts = (round(number * _TICKS / fps) for number in itertools.count())
    return ((start, stop - start) for start, stop in itertools.pairwise(starts))


def _measured_spans(times_s: np.ndarray) -> Iterator[tuple[int, int]]:
    usual = 1 / usual_rate(times_s)
    steps = np.append(np.diff(times_s), usual)
    ends = np.cumsum(np.where(steps > 0, steps, usual))
    order = np.arange(1, len(ends) + 1)  # every frame gets at least one tick
    ticks = np.maximum(np.round(ends * _TICKS).astype(np.int64), order)
    stops = np.maximum.accumulate(ticks - order) + order
    starts = np.concatenate([[0], stops[:-1]])
    return zip(starts.tolist(), (stops - starts).tolist(), strict=True)
