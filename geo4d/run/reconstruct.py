"""The whole flow: a video becomes a reconstruction. Start reading here.

``Video -> [Window] -> predictor -> [Prediction] -> fusion -> Reconstruction``. Predictions wait on disk between the
predictor and the fusion, and maps go to the store frame by frame, so nothing holds the whole video.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from geo4d.config import make_config
from geo4d.errors import memory_errors
from geo4d.evidence.moving import find_moving
from geo4d.formats.files import disk_errors
from geo4d.formats.objects import is_url
from geo4d.models.base import Predictor, choose_device
from geo4d.optimise.scratch import give_back_memory
from geo4d.results.provenance import StageClock
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace, check_output
from geo4d.results.writer import StoreWriter
from geo4d.run.align import align_windows
from geo4d.run.evidence import WindowEvidence, find_motion, place_cameras
from geo4d.run.first_pass import first_look, kept_sizes, list_shots
from geo4d.run.inputs import (
    known_intrinsics,
    known_matrix,
    list_inputs,
    load_model,
    open_clip,
    require_camera,
)
from geo4d.run.metric import open_metric
from geo4d.run.plan import RunPlan, plan_run, require_space
from geo4d.run.predict import Progress, WindowSource, predict_windows, prepare
from geo4d.run.progress import stage_progress
from geo4d.run.spool import Spool
from geo4d.run.spool_copy import keep_copy
from geo4d.run.write import camera_known, describe_result, describe_run, frame_arrays, write_maps
from geo4d.types import Reconstruction
from geo4d.video.kept import KeptPictures

_SMALLER = "use a smaller --max-size or model, or close other programs"
_FEWER = "use fewer frames (--start, --stop, --stride)"
"""Ways out, for the message when memory has run out."""


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
    progress: bool = False,
    predict: Callable[[WindowSource, Spool, Progress], None] = predict_windows,
    spool_copy: str | None = None,
    **settings: Any,
) -> Reconstruction:
    """Reconstruct the 4D geometry of a video.

    Args:
        video: a video file, a folder of frames, or an array [T, H, W, 3], uint8 or float in [0, 1].
        output: folder for the result, or an address in an object store (``s3://bucket/name``; extra ``remote``); None
            keeps it in a temporary folder that lives as long as the result.
        model: a name in ``geo4d.models.base.PREDICTORS``, or a predictor.
        model_options: further options of the model's own pipeline.
        times_s: seconds of all frames of an array or of a folder, strictly increasing; None takes what ``times``, ``fps``
            or the source itself states.
        overwrite: replace an existing result, or forget an unfinished run.
        resume: go on with an unfinished run of ``output``; on a CPU the result is bit-identical.
        on_plan: called once with the plan, before the work starts.
        on_progress: called with a stage, how much of it is done, and how much there is.
        progress: show a bar for each stage, on the terminal or below the cell of a notebook.
        predict: the stage that puts every window on the spool; ``geo4d.batch.windows.WindowWorkers`` does it with several
            processes, bit for bit the same on a CPU with the same number of threads.
        spool_copy: address in an object store that keeps a copy of the finished windows until the result is there, from
            which ``resume`` goes on also on another machine.
        settings: fields of ``geo4d.config.RunConfig``, such as ``start``, ``stop``, ``stride``, ``fov_deg``,
            ``device``, ``seed`` or ``output_size``.
    Returns:
        the reconstruction, read lazily from disk.
    Raises:
        InputError: the video is missing, damaged or no video.
        OutputError: the output exists, is locked, or cannot be written.
        CheckpointError: the model's weights are missing or unsafe.
        GeometryError: no window gave usable geometry, or a trajectory or depth was given and the scale stays open.
        ValueError: unknown or nonsensical settings.
    """
    config = make_config(**settings)
    if is_url(output):
        from geo4d.run.publish import reconstruct_to_store, what_is_asked

        keywords = {
            **settings,
            "model": model,
            "model_options": model_options,
            "times_s": times_s,
            "resume": resume,
            "spool_copy": spool_copy,
        }
        make = partial(
            reconstruct,
            video,
            on_plan=on_plan,
            on_progress=on_progress,
            progress=progress,
            predict=predict,
            **keywords,
        )
        asked = what_is_asked(video, model, model_options, config)
        return reconstruct_to_store(str(output), make, asked, overwrite=overwrite, resume=resume)
    if times_s is not None and (config.fps is not None or config.times is not None):
        raise ValueError("expected times_s, a file of times or fps, got two of them")
    target = None if output is None else Path(output)
    if target is not None:
        check_output(target, overwrite=overwrite, resume=resume)
    clock = StageClock()
    look = first_look(config)
    with clock("read"), memory_errors("reading the video", f"{_SMALLER}, or a smaller copy of the video"):
        clip, config = open_clip(video, config, times_s, look)
    with clip, stage_progress(on_progress, show=progress) as said:
        require_camera(clip, config)
        with clock("load model"), memory_errors("loading the model", _SMALLER):
            device = choose_device(config.device, model if isinstance(model, str) else None)
            predictor = load_model(model, model_options, config, device)
        with clock("plan"), memory_errors("looking for shots", _SMALLER):
            scenes = list_shots(clip, config, said, look)
            looks = None if look is None else look.looks
            plan = plan_run(clip, predictor, config, scenes=scenes, device=device, looks=looks)
            inputs = list_inputs(clip, predictor, plan, config)
            metric_source = open_metric(clip, config)
            if metric_source is not None:
                plan = replace(plan, notes=(*plan.notes, *metric_source.notes))
        if on_plan is not None:
            on_plan(plan)
        needed = plan.spool_bytes + plan.result_bytes
        with (
            Workspace(target, inputs, overwrite=overwrite, resume=resume) as work,
            disk_errors(work.output, needed, "finished windows are kept for --resume"),
            keep_copy(spool_copy, work, said) as said_and_copied,
        ):
            require_space(work.folder, needed)
            spool = Spool(work.windows, config.precision)
            source = WindowSource(clip, plan, predictor, config.seed, known_intrinsics(clip, plan, config))
            pictures = KeptPictures(work.windows, kept_sizes(clip.size, plan.model_size), clip.num_frames)
            motion = moving = None
            if config.motion and predictor.info.evidence == "motion":
                with clock("motion"), memory_errors("tracking points", f"{_FEWER}, or --no-motion"):
                    motion = find_motion(
                        clip,
                        known_matrix(clip.size, clip, config),
                        work.windows,
                        said,
                        pictures=pictures,
                        zoom=config.zoom,
                    )
                    moving = find_moving(clip, motion, work.windows, said)
                evidence = WindowEvidence(motion, clip, plan.model_size, plan.windows, spool, moving)
                source = replace(source, evidence=evidence)
            with clock("predict"), memory_errors("predicting windows", _SMALLER):
                source = prepare(source, work.windows)
                predict(source, spool, said_and_copied)
            with clock("align"), memory_errors("aligning windows", _FEWER):
                alignment, predictions, tries = align_windows(source, spool, motion, config, said)
            if alignment.c2w is None:
                with clock("motion"), memory_errors("solving cameras", _FEWER):
                    alignment, motion = place_cameras(
                        alignment,
                        predictions,
                        clip,
                        intrinsics_known=source.intrinsics is not None,
                        per_frame_scale=predictor.info.window_length == 1,
                        folder=work.windows,
                        progress=said,
                    )
            metric = None
            if metric_source is not None:
                with clock("align"):
                    metric = metric_source.measure(alignment, predictions, motion)
            give_back_memory()
            with clock("write"), memory_errors("storing maps", "use --output-size model or a smaller size"):
                writer = StoreWriter(work.result, clip.num_frames, plan.map_size, config.precision)
                factor = None if metric is None else metric.factor
                shown = write_maps(writer, alignment, predictions, clip, moving, said, device, factor)
            if metric is not None:
                alignment = metric.applied(alignment)
            alignment = replace(alignment, reliable=alignment.reliable & shown & camera_known(motion, shown))
            writer.finish(
                frame_arrays(alignment, clip, plan.map_size),
                describe_result(alignment, clip, config, inputs, target),
                describe_run(alignment, motion, predictions, plan, spool, tries, shown, clock),
                world="first camera" if metric is None or metric.c2w is None else "given",
            )
            clip.check_unchanged()
            clip.read_from(None)
            pictures.remove()
            return work.publish(keep_windows=config.keep_windows)


def load(path: str | Path) -> Reconstruction:
    """Open the result of a run; maps are read when they are sliced.

    Args:
        path: folder, or an address in an object store (extra ``remote``).
    Raises:
        OutputError: no result there, or it is unfinished, incomplete, damaged, or of a newer format. Damage inside a map
            is found, and raised, when it is sliced.
    """
    if is_url(path):
        from geo4d.results.remote import load_remote

        return load_remote(str(path))
    return load_result(path)
