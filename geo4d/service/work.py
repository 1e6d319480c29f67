"""What a process of the service does for a job: look at a clip, reconstruct it, write an export."""

import glob
import logging
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from geo4d.batch.one import Loaded, describe
from geo4d.errors import Geo4DError, OtherSettings, explain
from geo4d.export import ExportConfig, find_format, save
from geo4d.formats.files import disk_errors, new_file
from geo4d.optimise.scratch import give_back_memory
from geo4d.results.manifest import is_result
from geo4d.results.reader import load_result
from geo4d.results.verdict import judge_result
from geo4d.run.inputs import open_clip
from geo4d.run.plan import RunPlan
from geo4d.run.reconstruct import reconstruct
from geo4d.service.jobs import PREVIEW, RESULT, SOURCE
from geo4d.service.preview import save_preview
from geo4d.service.tasks import Check, Export, TooManyFrames, Work
from geo4d.types import Reconstruction
from geo4d.viewer.report import save_report

Say: TypeAlias = Callable[..., None]
"""Sends ``("plan", plan)`` or ``("stage", name, done, total)``."""

MOST_WARNINGS = 20

FRAME_BY_FRAME = ("exr", "png")
"""Formats whose single file holds one frame: they come as a folder."""


def do(task: Check | Work | Export, loaded: Loaded | None, say: Say) -> dict[str, Any]:
    """Do a task.

    Returns:
        what came out; ``exit_code`` and ``reason`` as the command line would have ended; ``kind`` is the class of the
        error.
    """
    with _Warnings() as warnings:
        try:
            if isinstance(task, Check):
                note = check_clip(task)
            elif isinstance(task, Work):
                assert loaded is not None
                note = reconstruct_clip(task, loaded, say)
            else:
                note = write_export(task)
        except Exception as error:
            code, reason = explain(error)
            note = {"exit_code": code, "reason": reason, "kind": type(error).__name__}
    give_back_memory()
    source = task.source
    for place, word in ((str(source), source.name), (str(source.parent.parent), "the job")):
        note["reason"] = note.get("reason", "").replace(place, word)
        warnings.texts = [text.replace(place, word) for text in warnings.texts]
    return {"exit_code": 0, "kind": "", **note, "warnings": warnings.texts}


def check_clip(task: Check) -> dict[str, Any]:
    """Open the clip; frames beyond what is allowed are not even decoded.

    Raises:
        InputError: it is no video, or damaged.
        TooManyFrames: it is too long.
        ValueError: a nonsensical range.
    """
    config = task.config
    most = config.start + (task.max_frames + 1) * config.stride
    cut = replace(config, stop=most if config.stop is None else min(config.stop, most))
    clip, _ = open_clip(task.source, cut)
    with clip:
        num_frames, (height, width) = clip.num_frames, clip.source_size
    if num_frames > task.max_frames:
        raise TooManyFrames(
            f"{task.source.name}: expected at most {task.max_frames} frames, got more; send a shorter clip, or use start "
            "and stop, or stride"
        )
    return {"frames": num_frames, "width": width, "height": height}


def reconstruct_clip(task: Work, loaded: Loaded, say: Say) -> dict[str, Any]:
    """Reconstruct, then write what the page shows; what an earlier start has finished is used."""
    config = replace(loaded.config, **task.options)
    result_folder, began = task.folder / RESULT, time.perf_counter()
    if is_result(result_folder):
        result = load_result(result_folder)
    else:
        keywords: dict[str, Any] = {
            **vars(config),
            "model": loaded.predictor,
            "on_plan": lambda plan: say("plan", describe_plan(plan)),
            "on_progress": _Stages(say),
        }
        try:
            result = reconstruct(task.source, result_folder, resume=True, **keywords)
        except OtherSettings:  # begun by a service with another model, version or device
            result = reconstruct(task.source, result_folder, overwrite=True, **keywords)
    say("stage", "preview", 0, result.num_frames)
    save_preview(result, task.folder / PREVIEW, lambda done: say("stage", "preview", done, result.num_frames))
    summary = summarise(result, seconds=time.perf_counter() - began)
    code, reason = 0, ""
    try:
        judge_result(result).require(keep_going=False)
    except Geo4DError as error:
        code, reason = explain(error)
    return {"summary": summary, "exit_code": code, "reason": reason.split("; the result is written")[0]}


def describe_plan(plan: RunPlan) -> dict[str, Any]:
    """A plan for the API: JSON values."""
    return {
        "lines": plan.lines(),
        "frames": plan.num_frames,
        "duration_s": plan.duration_s,
        "source_size": list(reversed(plan.source_size)),
        "map_size": list(reversed(plan.map_size)),
        "windows": len(plan.windows),
        "shots": len(plan.scenes),
        "seconds": plan.seconds,
        "memory_bytes": plan.memory_bytes,
        "result_bytes": plan.result_bytes,
        "model": plan.model.name,
        "licence": plan.model.licence,
        "notes": list(plan.notes),
    }


def summarise(result: Reconstruction, *, seconds: float) -> dict[str, Any]:
    """A result for the API: JSON values; unknown ones are None."""
    height, width = result.size
    focal = np.asarray(result.intrinsics, np.float64)[:, 0, 0]
    verdict = judge_result(result)
    scenes = 1 if result.scene is None else len(np.unique(result.scene))
    return {
        **describe(result),
        "size": [width, height],
        "duration_s": float(result.times_s[-1]) - float(result.times_s[0]),
        "scale": result.scale_kind,
        "scenes": scenes,
        "has_cameras": result.has_poses,
        "field_of_view_deg": float(np.degrees(2 * np.arctan(0.5 * width / focal)).mean()),
        "problems": list(verdict.problems),
        "remarks": list(verdict.remarks),
        "seconds": seconds,
        "seconds_by_stage": dict(result.diagnostics.get("seconds", {})),
        "model": result.provenance.get("model", {}).get("name"),
        "licence": result.provenance.get("model", {}).get("licence"),
    }


def write_export(task: Export) -> dict[str, Any]:
    """Write one file: that of the format, or a zip of its files; complete or not at all.

    It takes the place of one with other options: a job has one file of each format.

    Raises: what ``geo4d.export.save`` does.
    """
    stage = task.folder / f".{task.target.name}.stage"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        file = _write_export(task, stage / task.stem)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    for other in task.target.parent.glob(f"{glob.escape(task.name)}-{'?' * 12}.*"):
        if other != file:
            other.unlink(missing_ok=True)
    return {"file": file.name, "bytes": file.stat().st_size}


def _write_export(task: Export, root: Path) -> Path:
    """The file; ``root`` is where its parts may lie meanwhile."""

    def target(suffix: str) -> Path:
        return task.target.with_name(task.target.name + suffix)

    result = load_result(task.folder / RESULT)
    if task.name == "report":
        return save_report(result, target(".html"))
    if task.name == "result":
        # As they lie beside each other here: a reader elsewhere finds the colours again.
        parts = [task.folder / RESULT, task.folder / SOURCE]
        files = [file for part in parts for file in sorted(part.rglob("*")) if file.is_file()]
        return _zip([(file, task.stem / file.relative_to(task.folder)) for file in files], target(".zip"))
    suffixes = find_format(task.name).suffixes
    root.mkdir(parents=True)
    is_file = suffixes and task.name not in FRAME_BY_FRAME
    place = root / f"{task.stem}{suffixes[0]}" if is_file else root / task.name
    written = save(result, place, task.name, ExportConfig(**task.options))
    if len(written) == 1 and written[0].is_file():
        return written[0].replace(target(written[0].suffix))
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    return _zip([(file, file.relative_to(root.parent)) for file in files], target(".zip"))


def _zip(files: list[tuple[Path, Path]], target: Path) -> Path:
    """What lies in the archive is packed already, or quick to send; so it is stored as it is."""
    needed = sum(file.stat().st_size + 256 for file, _ in files)
    with (
        disk_errors(target, needed, "nothing was left behind"),
        new_file(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for file, name in files:
            archive.write(file, name.as_posix())
    return target


class _Stages:
    """Says when another stage begins or a window is done; at most a hundred times a stage."""

    def __init__(self, say: Say) -> None:
        self._say, self._last = say, ("", -1)

    def __call__(self, stage: str, done: int, total: int) -> None:
        mark = (stage, 100 * done // max(total, 1))
        if mark != self._last:
            self._last = mark
            self._say("stage", stage, done, total)


class _Warnings(logging.Handler):
    """The warnings of a task, for the page of its job."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if len(self.texts) < MOST_WARNINGS and text not in self.texts:
            self.texts.append(text)

    def __enter__(self) -> "_Warnings":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
