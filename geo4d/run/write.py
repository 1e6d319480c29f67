"""Frames of the aligned world, brought to their size and stored, with what is said of them."""

import logging
import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from geo4d.cameras.pose import RELIABLE
from geo4d.cameras.types import MotionCameras
from geo4d.config import RunConfig
from geo4d.errors import is_out_of_memory
from geo4d.evidence.moving import MovingMaps
from geo4d.fusion.alignment import Alignment
from geo4d.fusion.dense import iter_dense
from geo4d.fusion.steady import iter_steady
from geo4d.fusion.upsample import upsample_depth
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.models.devices import has_float64
from geo4d.optimise.scratch import give_back_memory
from geo4d.optimise.threads import one_thread
from geo4d.results.provenance import StageClock, machine, peak_memory
from geo4d.results.writer import StoreWriter
from geo4d.run.evidence import describe
from geo4d.run.plan import RunPlan
from geo4d.run.predict import Progress, nonfinite_windows
from geo4d.run.spool import Spool, SpooledPredictions
from geo4d.types import FrameMaps
from geo4d.video.io import Video
from geo4d.video.visible import outside_bars, shows_something, visible_pixels

log = logging.getLogger(__name__)


MOST_WORKERS = 4
"""Frames that are enlarged beside each other; each takes about 60 bytes per pixel."""


def write_maps(
    writer: StoreWriter,
    alignment: Alignment,
    predictions: SpooledPredictions,
    clip: Video,
    moving: MovingMaps | None,
    progress: Progress,
    device: str = "cpu",
    factor: Float[Tensor, " T"] | None = None,
) -> Bool[Tensor, " T"]:
    """Dense maps of every frame, at the size of the store; a few frames are enlarged and stored beside each other.

    What moves is told by flow where the cameras come from tracks, else by the aligned depths (``fusion/moving.py``).
    Where the picture shows nothing (``video/visible.py``), no confidence is left.

    Args:
        device: where depth and confidence are computed, the CPU in place of one without float64; what is stored is the
            host's work, beside it.
        factor: of the depth that is stored, per frame; see ``run.metric``.
    Returns:
        True for frames with a usable picture.
    """
    shown = torch.ones(clip.num_frames, dtype=torch.bool)

    def moving_at(frame: int) -> Tensor | None:
        return None if moving is None else moving.at(frame, alignment.size)

    keeps_colour = clip.path is None  # an array cannot be read again later
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    waiting: deque[tuple[Future[int], tuple[FrameMaps, Tensor, Tensor]]] = deque()

    def enlarge_and_store(maps: FrameMaps, rgb_low: Tensor, rgb: Tensor) -> int:
        colour = (rgb * 255).round().byte().numpy() if keeps_colour else None
        maps = resize_maps(maps, rgb_low, rgb)
        if factor is not None:
            maps = replace(maps, depth=maps.depth * float(factor[maps.frame_index]))
        writer.write(maps, colour)
        return maps.frame_index

    def finish_one() -> None:
        nonlocal workers
        future, frame = waiting.popleft()
        try:
            done = future.result()
        except Exception as error:
            if workers == 0 or not is_out_of_memory(error):
                raise
            log.warning(
                "out of memory while storing frame %d: from here on one after another", frame[0].frame_index
            )
            workers = 0
            wait(
                [other for other, _ in waiting]
            )  # and let go of what they hold, before this one is tried again
            give_back_memory()
            done = enlarge_and_store(*frame)
        progress("write", done + 1, clip.num_frames)

    # One torch thread in each: frames, not parts of them, are shared out.
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        by_depth = moving is None or not moving.everywhere
        device = device if has_float64(torch.device(device)) else "cpu"
        dense = iter_dense(alignment, predictions, with_moving=by_depth, device=device)
        for found in iter_steady(alignment, dense, None if moving is None else moving_at):
            maps = found.to("cpu")
            by_flow = moving_at(maps.frame_index)
            if by_flow is not None:
                maps = replace(maps, dynamic=torch.where(torch.isnan(maps.depth), 0.0, by_flow))
            rgb = clip.read([maps.frame_index], writer.size)[0]
            rgb_low = clip.read([maps.frame_index], alignment.size)[0]
            visible = visible_pixels(rgb_low)
            shown[maps.frame_index] = shows_something(visible)
            # Where a picture shows nothing, whatever the model answers is invented.
            maps = replace(maps, confidence=maps.confidence * (visible & shown[maps.frame_index]))
            frame = (maps, rgb_low, rgb)
            waiting.append((pool.submit(enlarge_and_store, *frame), frame))
            if len(waiting) > workers:
                finish_one()
        while waiting:
            finish_one()
    return shown


def camera_known(motion: MotionCameras | None, like: Tensor) -> Bool[Tensor, " T"]:
    """False where tracks were looked at and gave no camera; a picture that stands alone needs none."""
    if motion is None or len(motion.confidence) < 2:
        return torch.ones_like(like)
    return motion.confidence >= RELIABLE


def resize_maps(maps: FrameMaps, rgb_low: Float[Tensor, "h w 3"], rgb: Float[Tensor, "H W 3"]) -> FrameMaps:
    """Maps of one frame from the size of the model to that of the store, along the edges of the picture.

    Bars keep no confidence: where they end is seen on the large picture, the enlarged map would reach into them.

    Args:
        rgb_low, rgb: colour at both sizes.
    """
    if maps.depth.shape == rgb.shape[:2]:
        return maps

    def smooth(values: Tensor) -> Tensor:
        size = (rgb.shape[0], rgb.shape[1])
        return interpolate(values[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]

    depth = upsample_depth(maps.depth, rgb_low, rgb)
    return FrameMaps(
        maps.frame_index,
        depth,
        torch.where(torch.isnan(depth), 0.0, smooth(maps.confidence)) * outside_bars(rgb),
        None if maps.dynamic is None else smooth(maps.dynamic.nan_to_num(nan=0.0)),
    )


def frame_arrays(alignment: Alignment, clip: Video, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The arrays of a result with one row a frame; intrinsics in pixels of the stored ``size`` (height, width)."""
    intrinsics = resize_intrinsics(alignment.intrinsics, alignment.size, size)
    arrays = {
        "intrinsics": intrinsics.cpu().numpy(),
        "times_s": clip.times_s,
        "source_frames": clip.source_frames.astype(np.int64),
        "scene": alignment.scene.cpu().numpy().astype(np.int64),
        "reliable": alignment.reliable.cpu().numpy(),
    }
    if alignment.c2w is not None:
        arrays["c2w"] = alignment.c2w.cpu().numpy()
    return arrays


def describe_result(
    alignment: Alignment, clip: Video, config: RunConfig, inputs: Mapping[str, Any], output: Path | None
) -> dict[str, Any]:
    """Metadata of a result: source, model, scale, settings, versions."""
    source: dict[str, Any] = {
        "name": clip.name,
        "sha256": inputs["source"]["sha256"],
        "size": {"height": clip.source_size[0], "width": clip.source_size[1]},
        "damage": clip.damage,
        "notes": list(clip.notes),
        "reading": clip.reading,
    }
    if clip.path is not None:
        source["path"] = str(clip.path.resolve())
    return {
        "scale_kind": alignment.scale_kind,
        "has_poses": alignment.c2w is not None,
        "unit": "metres" if alignment.scale_kind == "metric" else "up to scale: one unknown factor per scene",
        "source": source,
        "provenance": {
            **inputs,
            "config": config,
            "align": alignment.config,
            "metric": alignment.diagnostics.get("metric"),
            "machine": machine(),
        },
    }


def relative_windows(provenance: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Windows whose depth a depth network gave with nothing to scale it against (``models/monodepth``)."""
    return [window for window, told in provenance.items() if told.get("depth_from") == "pictures"]


def describe_run(
    alignment: Alignment,
    motion: MotionCameras | None,
    predictions: SpooledPredictions,
    plan: RunPlan,
    spool: Spool,
    tries: Mapping[int, int],
    shown: Bool[Tensor, " T"],
    clock: StageClock,
) -> dict[str, Any]:
    """What is told about a run beside its result: JSON values.

    Args:
        tries: re-sampled window -> the try that it ended with.
        shown: frames that show something.
    """
    provenance = predictions[: len(plan.windows)].provenance()
    return {
        **alignment.diagnostics,
        "windows": plan.windows,
        "evidence_windows": spool.evidence_windows(),
        "relative_windows": relative_windows(provenance),
        "motion": None if motion is None else describe(motion),
        "tries": tries,
        "not_finite": nonfinite_windows(provenance),
        "frames_without_picture": torch.nonzero(~shown)[:, 0].tolist(),
        "num_unreliable_frames": int((~alignment.reliable).sum()),
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "peak_memory_bytes": peak_memory(),
    }
