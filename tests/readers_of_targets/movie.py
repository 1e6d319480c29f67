"""Movies as FFmpeg's libraries (PyAV) play them: presentation time of every picture, and how long the file lasts."""

from pathlib import Path

import av
import numpy as np


def load(path: Path) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Times in seconds, duration in seconds as the container states it, and pictures."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name in ("vp9", "libdav1d", "av1", "libaom-av1")
        assert container.duration is not None
        duration = container.duration / av.time_base
        assert abs(float(stream.duration * stream.time_base) - duration) < 0.002
    return (
        np.array([frame.time for frame in frames]),
        duration,
        [f.to_ndarray(format="rgb24") for f in frames],
    )
