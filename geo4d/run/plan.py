"""What a run will do, before it does it: windows, expected memory, time and disk."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geo4d.config import RunConfig, parse_size
from geo4d.errors import DiskFull
from geo4d.fusion.alignment import AlignConfig
from geo4d.models.base import Predictor, PredictorInfo
from geo4d.results.layout import frame_bytes
from geo4d.run.first_pass import kept_sizes
from geo4d.run.spool import window_bytes
from geo4d.video.io import Video, fit_size
from geo4d.video.kept import KeptPictures
from geo4d.video.revisits import FrameLooks
from geo4d.video.windows import plan_windows, wide_windows

MAX_SOURCE_SIZE = 1024
"""Longest side of stored maps when the output size is ``source``."""

BASE_MEMORY = 600 * 2**20
"""Process with its libraries, frames, caches and evidence; measured in benchmarks/results/2026-11-20-clips.md."""

FULL_SAMPLING, LEAST_SAMPLES = 300, 40
"""Frames up to which the alignment samples as many pixels per frame as it likes, and the fewest in longer videos."""

FRAMES_HELD = 1000
"""Frames beyond which the memory of the alignment hardly grows."""

WIDE_STEPS = {"dilated": (2, 3), "keyframes": (12,)}
"""Frames between neighbours in wide windows; how they hold drift is measured in benchmarks/alignment_long.py."""


@dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes:
        source: name of the video.
        num_frames: frames in the processed sequence.
        duration_s: from the first to the last of them, seconds.
        source_size, model_size, map_size: (height, width) of the frames, of the network's pictures, of the result.
        scenes: [start, end) of each shot.
        windows: frames of each window, ordered by their last frames; no window crosses a cut.
        model: what will predict.
        device: torch device.
        dtype: compute type.
        memory_bytes: expected peak memory of the process.
        seconds: expected duration, or None when nothing is known about this model.
        spool_bytes: most that window predictions take on disk while the run lasts.
        result_bytes: most that the result takes.
        notes: statements about the source.
    """

    source: str
    num_frames: int
    duration_s: float
    source_size: tuple[int, int]
    model_size: tuple[int, int]
    map_size: tuple[int, int]
    scenes: tuple[tuple[int, int], ...]
    windows: tuple[tuple[int, ...], ...]
    model: PredictorInfo
    device: str
    dtype: str
    memory_bytes: int
    seconds: float | None
    spool_bytes: int
    result_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def pixel_aspect(self) -> float:
        """fy / fx, in pixels of the network's pictures, of a camera with square pixels in the source."""
        (height, width), (rows, cols) = self.source_size, self.model_size
        return (rows / height) / (cols / width)

    def lines(self) -> list[str]:
        """The plan for people, one fact per line."""
        scenes = f" in {len(self.scenes)} shots" if len(self.scenes) > 1 else ""
        count = sum(window[-1] - window[0] >= len(window) for window in self.windows)
        wide = f", {count} of them wide" if count else ""
        time = "not known for this model; shown after the first window"
        if self.seconds is not None:
            time = f"about {_duration(self.seconds)}"
        return [
            f"input    {self.source}: {self.num_frames} frames{scenes}, {self.duration_s:.1f} s, "
            f"{_size(self.source_size)}",
            *(f"note     {note}" for note in self.notes),
            f"model    {self.model.name}: {self.model.description} [{self.model.licence}]",
            *([f"note     {self.model.remark}"] if self.model.remark else []),
            f"device   {self.device}, {self.dtype}, {os.cpu_count()} CPU cores",
            f"windows  {len(self.windows)} of up to {self.model.window_length} frames at {_size(self.model_size)}{wide}",
            f"result   maps {_size(self.map_size)}, at most {_bytes(self.result_bytes)}; "
            f"while running {_bytes(self.spool_bytes)} more on disk",
            f"needs    about {_bytes(self.memory_bytes)} of memory; time {time}",
        ]


def plan_run(
    video: Video,
    predictor: Predictor,
    config: RunConfig,
    *,
    scenes: Sequence[tuple[int, int]],
    device: str,
    looks: FrameLooks | None = None,
) -> RunPlan:
    """Plan windows and estimate what the run takes.

    Args:
        scenes: [start, end) of each shot.
        looks: the frames' looks, for loop windows.
    Raises:
        ValueError: wide windows for a predictor that takes consecutive frames only.
    """
    info, model_size = predictor.info, predictor.size_for(video.size)
    windows = list_windows(info, config, scenes, looks)
    wanted = parse_size(config.output_size)
    if wanted == "model":
        map_size = model_size
    elif wanted == "source":
        map_size = fit_size(video.size, MAX_SOURCE_SIZE)
    else:
        map_size = wanted
    spool = sum(window_bytes(len(window), model_size, config.precision) for window in windows)
    if info.evidence == "motion" and config.motion:
        spool *= 2  # the evidence waits there, too
        spool += KeptPictures.num_bytes(kept_sizes(video.size, model_size), video.num_frames)
    work = info.work
    seconds = None
    if work is not None and device == "cpu":
        seconds = (len(windows) * work[0] + video.num_frames * work[1]) / matrix_speed() * 1e9
    return RunPlan(
        source=video.name,
        num_frames=video.num_frames,
        duration_s=float(video.times_s[-1] - video.times_s[0]),
        source_size=video.source_size,
        model_size=model_size,
        map_size=map_size,
        scenes=tuple(scenes),
        windows=windows,
        model=info,
        device=device,
        dtype=config.dtype or "the model's own type",
        memory_bytes=BASE_MEMORY
        + max(predictor.memory_bytes(video.size), align_bytes(windows, video.num_frames)),
        seconds=seconds,
        spool_bytes=spool,
        result_bytes=video.num_frames * frame_bytes(map_size, config.precision, with_rgb=video.path is None),
        notes=video.notes,
    )


def list_windows(
    info: PredictorInfo, config: RunConfig, scenes: Sequence[tuple[int, int]], looks: FrameLooks | None = None
) -> tuple[tuple[int, ...], ...]:
    """Frames of every window of a run, ordered by their last frames.

    Raises:
        ValueError: wide windows for a predictor that takes consecutive frames only, or a stride that leaves frames out.
    """
    if config.wide_windows and not info.takes_gaps:
        raise ValueError(
            f"the model {info.name} takes consecutive frames only; leave out --wide-windows, or use tiny or geo4d"
        )
    length, stride = info.window_length, config.window_stride or info.window_stride
    if stride > length:
        raise ValueError(
            f"expected a window stride of 1 to {length} frames, the length of a window of {info.name}, got {stride}"
        )
    windows: set[tuple[int, ...]] = set()
    for start, end in scenes:
        plain = plan_windows(end - start, length, stride)
        windows |= {tuple(range(start + a, start + b)) for a, b in plain}
        for kind in config.wide_windows:
            for step in WIDE_STEPS.get(kind, ()):
                windows |= {
                    tuple(start + t for t in wide) for wide in wide_windows(end - start, length, step)
                }
        if "loops" in config.wide_windows and looks is not None:
            windows |= {first + second for first, second in looks.revisits(start, end, length // 2)}
    return tuple(sorted(windows, key=lambda frames: (frames[-1], frames)))


def align_bytes(windows: Sequence[Sequence[int]], num_frames: int) -> int:
    """Memory of the alignment above the idle process, fitted to benchmarks/alignment_long.py.

    Of more than ``FRAMES_HELD`` frames the rest lies on disk (``optimise/scratch.py``).
    """
    per_window_and_frame = 40_000 + 210 * samples_per_frame(num_frames, AlignConfig.num_samples)
    share = min(1.0, FRAMES_HELD / num_frames)
    return round(share * sum(len(window) for window in windows)) * per_window_and_frame


def samples_per_frame(num_frames: int, most: int) -> int:
    """Pixels per frame that the alignment sees.

    Fewer in long videos, a little faster than in proportion, so that its memory hardly grows with the video; the windows
    tie the frames together, and accuracy does not suffer (measured in benchmarks/alignment_long.py).
    """
    share = min(1.0, (FULL_SAMPLING / num_frames) ** 1.25)
    return max(round(most * share), min(LEAST_SAMPLES, most))


def require_space(folder: Path, needed: int) -> None:
    """
    Raises:
        DiskFull: the disk of ``folder`` has less free space than ``needed`` bytes.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{folder} has {_bytes(free)} free, the run may need {_bytes(needed)}; free some space, "
            "choose another output, or a smaller --output-size or frame range"
        )


def matrix_speed() -> float:
    """Float32 matrix operations per second of this machine, measured for a few hundredths of a second."""
    import time

    import torch

    a = torch.ones(512, 512)
    a @ a
    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 512**3 / min(times)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
