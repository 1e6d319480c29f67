"""The whole flow: a video becomes a reconstruction. Start reading here.

``Video -> [Window] -> predictor -> [Prediction] -> fusion -> Reconstruction``. Predictions wait on disk between the
predictor and the fusion, and maps go to the store frame by frame, so nothing holds the whole video.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from geo4d.cameras.pose import RELIABLE
from geo4d.cameras.types import MotionCameras
from geo4d.config import RunConfig, make_config
from geo4d.datasets.recordings import find_recording, picture_names
from geo4d.errors import GeometryError, is_out_of_memory, memory_errors
from geo4d.evidence.moving import MovingMaps, find_moving
from geo4d.formats.files import disk_errors
from geo4d.fusion.align import align
from geo4d.fusion.alignment import AlignConfig, Alignment, find_bad_windows
from geo4d.fusion.dense import iter_dense
from geo4d.fusion.steady import iter_steady
from geo4d.fusion.upsample import upsample_depth
from geo4d.geometry.cameras import centred_intrinsics, focal_from_fov, intrinsics_matrix, resize_intrinsics
from geo4d.models.base import Predictor, choose_device, load_predictor
from geo4d.optimise.scratch import give_back_memory
from geo4d.optimise.threads import one_thread
from geo4d.results.provenance import StageClock, machine, peak_memory, versions
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace, check_output
from geo4d.results.writer import StoreWriter
from geo4d.run.evidence import WindowPrior, camera_evidence, describe, find_motion, place_cameras
from geo4d.run.plan import RunPlan, plan_run, require_space, samples_per_frame
from geo4d.run.predict import (
    Progress,
    WindowSource,
    nonfinite_windows,
    predict_again,
    predict_windows,
    prepare,
)
from geo4d.run.spool import EVIDENCE, Spool, SpooledPredictions
from geo4d.types import FrameMaps, Reconstruction
from geo4d.video.io import Video, fit_size
from geo4d.video.revisits import FrameLooks
from geo4d.video.shots import find_shots
from geo4d.video.visible import shows_something, visible_pixels

log = logging.getLogger(__name__)

MOST_WORKERS = 4
"""Frames that are enlarged beside each other; each takes about 60 bytes per pixel."""

_SMALLER = "use a smaller --max-size or model, or close other programs"
_FEWER = "use fewer frames (--start, --stop, --stride)"
"""Ways out, for the message when memory has run out."""

DECIDE_NO_WINDOW = ("times", "tries", "fusion", "output_size", "keep_windows", "allow_partial")
"""Settings that may change when a run is resumed: they come after the windows."""


def reconstruct(
    video: str | Path | np.ndarray | Tensor,
    output: str | Path | None = None,
    *,
    model: str | Predictor = "tiny",
    model_options: Mapping[str, Any] | None = None,
    times_s: Sequence[float] | np.ndarray | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_plan: Callable[[RunPlan], None] | None = None,
    on_progress: Progress | None = None,
    **settings: Any,
) -> Reconstruction:
    """Reconstruct the 4D geometry of a video.

    Args:
        video: a video file, a folder of frames, or an array [T, H, W, 3], uint8 or float in [0, 1].
        output: folder for the result; None keeps it in a temporary folder that lives as long as the result.
        model: a name in ``geo4d.models.base.PREDICTORS``, or a predictor.
        model_options: further options of the model's own pipeline.
        times_s: seconds of all frames of an array or of a folder, strictly increasing; None takes what ``times``, ``fps``
            or the source itself states.
        overwrite: replace an existing result, or forget an unfinished run.
        resume: go on with an unfinished run of ``output``; on a CPU the result is bit-identical.
        on_plan: called once with the plan, before the work starts.
        on_progress: called with a stage, how much of it is done, and how much there is.
        settings: fields of ``geo4d.config.RunConfig``, such as ``start``, ``stop``, ``stride``, ``fov_deg``,
            ``device``, ``seed`` or ``output_size``.
    Returns:
        the reconstruction, read lazily from disk.
    Raises:
        InputError: the video is missing, damaged or no video.
        OutputError: the output exists, is locked, or cannot be written.
        CheckpointError: the model's weights are missing or unsafe.
        GeometryError: no window gave usable geometry.
        ValueError: unknown or nonsensical settings.
    """
    config = make_config(**settings)
    if times_s is not None and (config.fps is not None or config.times is not None):
        raise ValueError("expected times_s, a file of times or fps, got two of them")
    progress = on_progress or (lambda stage, done, total: None)
    target = None if output is None else Path(output)
    if target is not None:
        check_output(target, overwrite=overwrite, resume=resume)
    clock = StageClock()
    with clock("read"), memory_errors("reading the video", f"{_SMALLER}, or a smaller copy of the video"):
        clip, config = _open(video, config, times_s)
    with clip:
        with clock("load model"), memory_errors("loading the model", _SMALLER):
            device = choose_device(config.device)
            predictor = _load(model, model_options, config, device)
        with clock("plan"), memory_errors("looking for shots", _SMALLER):
            looks = FrameLooks() if "loops" in config.wide_windows else None
            scenes = find_scenes(clip, config, progress, looks)
            plan = plan_run(clip, predictor, config, scenes=scenes, device=device, looks=looks)
            inputs = _inputs(clip, predictor, plan, config)
        if on_plan is not None:
            on_plan(plan)
        needed = plan.spool_bytes + plan.result_bytes
        with (
            Workspace(target, inputs, overwrite=overwrite, resume=resume) as work,
            disk_errors(work.output, needed, "finished windows are kept for --resume"),
        ):
            require_space(work.folder, needed)
            spool = Spool(work.windows, config.precision)
            source = WindowSource(clip, plan, predictor, config.seed, _known_intrinsics(clip, plan, config))
            motion = moving = None
            if config.motion and predictor.info.prior == "motion":
                with clock("motion"), memory_errors("tracking points", f"{_FEWER}, or --no-motion"):
                    motion = find_motion(
                        clip,
                        _known_matrix(clip.size, clip, config),
                        work.windows,
                        progress,
                        zoom=config.focal == "per_frame",
                    )
                    moving = find_moving(clip, motion, work.windows, progress)
                prior = WindowPrior(motion, clip, plan.model_size, plan.windows, spool, moving)
                source = replace(source, prior=prior)
            with clock("predict"), memory_errors("predicting windows", _SMALLER):
                source = prepare(source, work.windows)
                predict_windows(source, spool, progress)
            with clock("align"), memory_errors("aligning windows", _FEWER):
                alignment, predictions, tries = align_windows(source, spool, motion, config, progress)
            if alignment.c2w is None:
                with clock("motion"), memory_errors("solving cameras", _FEWER):
                    alignment, motion = place_cameras(
                        alignment,
                        predictions,
                        clip,
                        intrinsics_known=source.intrinsics is not None,
                        per_frame_scale=predictor.info.window_length == 1,
                        progress=progress,
                    )
            give_back_memory()
            with clock("write"), memory_errors("storing maps", "use --output-size model or a smaller size"):
                writer = StoreWriter(work.result, clip.num_frames, plan.map_size, config.precision)
                shown = write_maps(writer, alignment, predictions, clip, moving, progress)
            alignment = replace(alignment, reliable=alignment.reliable & shown & _camera_known(motion, shown))
            writer.finish(
                _per_frame(alignment, clip, plan.map_size),
                _manifest(alignment, clip, config, inputs, target),
                {
                    **alignment.diagnostics,
                    "windows": plan.windows,
                    "evidence_windows": spool.evidence_windows(),
                    "motion": None if motion is None else describe(motion),
                    "tries": tries,
                    "not_finite": nonfinite_windows(predictions[: len(plan.windows)]),
                    "frames_without_picture": torch.nonzero(~shown)[:, 0].tolist(),
                    "num_unreliable_frames": int((~alignment.reliable).sum()),
                    "seconds": clock.seconds,
                    "cpu_seconds": clock.cpu_seconds,
                    "peak_memory_bytes": peak_memory(),
                },
            )
            clip.check_unchanged()
            return work.publish(keep_windows=config.keep_windows)


def load(path: str | Path) -> Reconstruction:
    """Open the result of a run; maps are read when they are sliced.

    Raises:
        OutputError: there is no complete result.
    """
    return load_result(path)


def find_scenes(
    clip: Video, config: RunConfig, progress: Progress, looks: FrameLooks | None = None
) -> list[tuple[int, int]]:
    """[start, end) of every shot.

    Args:
        looks: remembers the look of every frame on the way.
    """
    whole = [(0, clip.num_frames)]
    if looks is None and (not config.split_shots or clip.num_frames < 2):
        return whole

    def frames() -> Iterator[Tensor]:
        for t, frame in enumerate(clip.frames(fit_size(clip.size, 128))):
            progress("find shots", t + 1, clip.num_frames)
            yield frame

    shots = find_shots(frames() if looks is None else looks.watch(frames()))
    return shots if config.split_shots else whole


def align_windows(
    source: WindowSource,
    spool: Spool,
    motion: MotionCameras | None,
    config: RunConfig,
    progress: Progress,
) -> tuple[Alignment, SpooledPredictions, dict[int, int]]:
    """Align all windows; those that disagree with everything around them are sampled again, a bounded number of times.

    Returns:
        the alignment, the predictions it was made from, and the try that each re-sampled window ended with.
    Raises:
        GeometryError: no frame was seen by a usable window.
    """
    plan, count = source.plan, len(source.plan.windows)
    evidence = None if motion is None else camera_evidence(motion, plan.scenes, plan.model_size)
    chosen = dict.fromkeys(range(count), 0)

    def solve(
        further: Sequence[tuple[int, int]] = (), bad: tuple[int, ...] | None = None
    ) -> tuple[Alignment, SpooledPredictions]:
        predictions = spool.sequence([*chosen.items(), *further])
        settings = AlignConfig.published() if config.fusion == "published" else AlignConfig.corrected()
        alignment = align(
            predictions,
            num_frames=source.clip.num_frames,
            config=replace(
                settings,
                focal=config.focal,
                pixel_aspect=plan.pixel_aspect,
                seed=config.seed,
                num_samples=samples_per_frame(source.clip.num_frames, settings.num_samples),
                force_bad_windows=bad,
            ),
            known_intrinsics=source.intrinsics,
            motion=None
            if evidence is None
            else replace(evidence, windows=tuple(range(count, count + len(further)))),
            device=plan.device,
            scratch=spool.folder,
            progress=lambda stage, share: progress("align", int(100 * share), 100),
        )
        return alignment, predictions

    alignment, predictions = solve()
    for attempt in range(1, config.tries + 1):
        bad = find_bad_windows(alignment)
        if not bad or len(bad) == count:
            break
        changed = False
        for done, index in enumerate(bad):
            log.info("window %d disagrees with the others; try %d", index, attempt)
            if predict_again(source, spool, index, attempt):
                chosen[index], changed = attempt, True
            elif done == 0:
                break  # no noise in this model: every further try would be the same
            progress("sample again", done + 1, len(bad))
        if not changed:
            break
        alignment, predictions = solve()
    # Windows are judged among themselves first; then the evidence joins as predictions of its own. Its windows come from
    # one set of cameras and agree far better with each other than any network's do: no new judgement by distances.
    further = [(index, EVIDENCE) for index in spool.evidence_windows()]
    if further:
        alignment, predictions = solve(further, tuple(find_bad_windows(alignment)))
    if not bool(alignment.reliable.any()):
        raise GeometryError(
            "no window gave usable geometry; look at the frames (black, all sky, fog?), or try another --seed or --model"
        )
    return alignment, predictions, {window: attempt for window, attempt in chosen.items() if attempt}


def write_maps(
    writer: StoreWriter,
    alignment: Alignment,
    predictions: SpooledPredictions,
    clip: Video,
    moving: MovingMaps | None,
    progress: Progress,
) -> Bool[Tensor, " T"]:
    """Dense maps of every frame, at the size of the store; a few frames are enlarged and stored beside each other.

    What moves is told by flow where the cameras come from tracks, else by the aligned depths (``fusion/dynamic.py``).
    Where the picture shows nothing (``video/visible.py``), no confidence is left.

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
        writer.write(resize_maps(maps, rgb_low, rgb), colour)
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
        dense = iter_dense(alignment, predictions, with_dynamic=by_depth)
        for maps in iter_steady(alignment, dense, None if moving is None else moving_at):
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


def _camera_known(motion: MotionCameras | None, like: Tensor) -> Bool[Tensor, " T"]:
    """False where tracks were looked at and gave no camera; a picture that stands alone needs none."""
    if motion is None or len(motion.confidence) < 2:
        return torch.ones_like(like)
    return motion.confidence >= RELIABLE


def resize_maps(maps: FrameMaps, rgb_low: Float[Tensor, "h w 3"], rgb: Float[Tensor, "H W 3"]) -> FrameMaps:
    """Maps of one frame from the size of the model to that of the store, along the edges of the picture.

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
        torch.where(torch.isnan(depth), 0.0, smooth(maps.confidence)),
        None if maps.dynamic is None else smooth(maps.dynamic.nan_to_num(nan=0.0)),
    )


def _open(
    video: str | Path | np.ndarray | Tensor,
    config: RunConfig,
    times_s: Sequence[float] | np.ndarray | None = None,
) -> tuple[Video, RunConfig]:
    """The clip, and the settings with what its data set knows of the camera; what the user gave wins."""
    times = config.times if times_s is None else times_s
    reading: dict[str, Any] = {"fps": config.fps, "times": times, "pictures": config.pictures}
    recording = None
    if isinstance(video, str | Path) and config.pictures is None:
        recording = find_recording(Path(video))
    if recording is not None and isinstance(video, str | Path):
        reading["pictures"] = picture_names(recording, Path(video))
        if config.fps is None and times is None:
            reading["times"] = recording.times_s
    clip = Video(
        video,
        start=config.start,
        stop=config.stop,
        stride=config.stride,
        max_size=config.max_size,
        value_range=config.value_range,
        allow_partial=config.allow_partial,
        **reading,
    )
    if recording is not None:
        known = config.intrinsics is not None or config.fov_deg is not None
        intrinsics = recording.intrinsics_for(clip.source_size)
        if intrinsics is not None and not known:
            config = replace(config, intrinsics=intrinsics)
        clip.notes = (*recording.notes, recording.camera_note(clip.source_size, known), *clip.notes)
    return clip, config


def _load(
    model: str | Predictor, options: Mapping[str, Any] | None, config: RunConfig, device: str
) -> Predictor:
    if not isinstance(model, str):
        return model
    chosen = dict(options or {})
    if config.num_steps is not None:
        chosen["num_steps"] = config.num_steps
    try:
        return load_predictor(model, weights=config.weights, device=device, dtype=config.dtype, **chosen)
    except TypeError as error:
        if not options:
            raise
        raise ValueError(
            f"expected model options of the right types, got {dict(options)}: {error}"
        ) from error


def _known_intrinsics(clip: Video, plan: RunPlan, config: RunConfig) -> Float[Tensor, "T 3 3"] | None:
    """Intrinsics that the user gave, in pixels of the model's pictures."""
    matrix = _known_matrix(plan.model_size, clip, config)
    return None if matrix is None else matrix.expand(clip.num_frames, 3, 3).contiguous()


def _known_matrix(size: tuple[int, int], clip: Video, config: RunConfig) -> Float[Tensor, "3 3"] | None:
    """Intrinsics that the user gave, in pixels of pictures of ``size``."""
    height, width = clip.source_size
    if config.intrinsics is not None:
        fx, fy, cx, cy = torch.tensor(config.intrinsics)
        matrix = intrinsics_matrix(fx, fy, cx, cy)
    elif config.fov_deg is not None:
        fov = torch.deg2rad(torch.tensor(config.fov_deg))
        matrix = centred_intrinsics(focal_from_fov(fov, width), (height, width))
    else:
        return None
    return resize_intrinsics(matrix, (height, width), size)


def _inputs(clip: Video, predictor: Predictor, plan: RunPlan, config: RunConfig) -> dict[str, Any]:
    """What decides the windows of a run: a resumed run must agree in all of it."""
    info = predictor.info
    return {
        "source": {"sha256": clip.sha256(), "num_frames": clip.num_frames, "scenes": plan.scenes},
        "model": {
            "name": info.name,
            "weights_sha256": info.weights_sha256,
            "weights_compared": info.weights_compared,
            "licence": info.licence,
            "config": info.config,
        },
        "config": {f.name: getattr(config, f.name) for f in fields(config) if f.name not in DECIDE_NO_WINDOW},
        "device": plan.device,
        "model_size": plan.model_size,
        "versions": versions(),
    }


def _per_frame(alignment: Alignment, clip: Video, size: tuple[int, int]) -> dict[str, np.ndarray]:
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


def _manifest(
    alignment: Alignment, clip: Video, config: RunConfig, inputs: Mapping[str, Any], output: Path | None
) -> dict[str, Any]:
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
        "provenance": {**inputs, "config": config, "align": alignment.config, "machine": machine()},
    }
