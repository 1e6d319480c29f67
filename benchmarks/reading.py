"""How often a default run decodes the frames of a video, and the CPU seconds that reading takes.

    python benchmarks/reading.py OUT.json [--video CLIP] [--frames 100] [--size 1920 1080]

Without ``--video`` a clip is drawn and encoded (MPEG-4, a key frame every 12): a textured wall with boxes before it, by a
camera that moves sideways. Reading is what the decoder, the conversion to RGB, the resizing and, where a run keeps
pictures, their writing and reading take, each summed over all calls. The decoder runs without threads of its own, so that
its seconds are those of the thread that asks for frames, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import av  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402

from geo4d.results.provenance import machine  # noqa: E402
from geo4d.run.reconstruct import reconstruct  # noqa: E402
from geo4d.video import containers, io  # noqa: E402
from geo4d.video.containers import VideoFile  # noqa: E402


def draw_clip(path: Path, num_frames: int, size: tuple[int, int]) -> None:
    """A clip with parallax: (width, height) pictures, 24 per second."""
    width, height = size
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (height // 12, 2 * width // 12, 3), np.uint8)
    wall = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    boxes = [
        (int(x), int(y), float(s), generator.integers(0, 255, (8, 8, 3), np.uint8))
        for x, y, s in zip(
            generator.integers(0, 2 * width, 24),
            generator.integers(0, height, 24),
            generator.uniform(1.3, 3.0, 24),
            strict=True,
        )
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 12
        stream.bit_rate, stream.codec_context.time_base = 12_000_000, Fraction(1, 24)
        for t in range(num_frames):
            shift = 4.0 * t
            picture = wall[:, int(shift) : int(shift) + width].copy()
            for x, y, near, texture in boxes:
                side = int(40 * near)
                left = int(x - near * shift)
                if 0 <= left < width - side and y + side < height:
                    picture[y : y + side, left : left + side] = cv2.resize(texture, (side, side))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))


class Meter:
    """Calls and CPU seconds by what they do."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)

    def function(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                self.calls[what] += 1
                self.seconds[what] += time.thread_time() - begin

        return timed

    def frames(self, what: str, call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def timed(*args: Any) -> Iterator[Any]:
            source = call(*args)
            while True:
                begin = time.thread_time()
                frame = next(source, None)
                self.seconds[what] += time.thread_time() - begin
                if frame is None:
                    return
                self.calls[what] += 1
                yield frame

        return timed

    def watch(self) -> None:
        """From here on everything that reads is counted."""
        patch: Any = VideoFile
        open_file = patch._open

        def without_threads(self: Any) -> None:
            self._threads = "NONE"
            open_file(self)

        patch._open = without_threads
        patch._whole = self.frames("decode", patch._whole)
        containers_any: Any = containers
        containers_any.to_rgb = self.function("to RGB", containers.to_rgb)
        io_any: Any = io
        io_any._resized = self.function("resize", io._resized)
        try:
            from geo4d.video.kept import KeptPictures
        except ImportError:  # before pictures were kept
            return
        kept: Any = KeptPictures
        kept.add, kept.read = self.function("keep", kept.add), self.function("fetch", kept.read)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = options.video
        if video is None:
            video = Path(folder) / "drawn.mp4"
            draw_clip(video, options.frames, options.size)
        meter = Meter()
        meter.watch()
        begin = time.process_time()
        done = reconstruct(video, Path(folder) / "result", stop=options.frames)
        total = time.process_time() - begin
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "video": "drawn, MPEG-4" if options.video is None else video.name,
        "size": list(options.size) if options.video is None else None,
        "frames": done.num_frames,
        "decoded_per_frame": round(meter.calls["decode"] / done.num_frames, 2),
        "calls": dict(meter.calls),
        "cpu_s": {what: round(seconds, 2) for what, seconds in meter.seconds.items()},
        "reading_cpu_s": round(sum(meter.seconds.values()), 2),
        "run_cpu_s": round(total, 1),
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    json.dump(report, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
