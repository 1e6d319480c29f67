"""One clip of a batch through ``geo4d.run.reconstruct``, with a model that is held already, and what is noted of it."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.batch.task import Task
from geo4d.config import RunConfig, make_config
from geo4d.errors import (
    USAGE_ERROR,
    CheckpointError,
    DiskFull,
    GeometryError,
    InputError,
    MissingExtraError,
    OtherSettings,
    OutputError,
    OutputInUse,
    PluginError,
    explain,
)
from geo4d.models.base import Predictor, choose_device
from geo4d.optimise.scratch import give_back_memory
from geo4d.results.layout import plain
from geo4d.results.manifest import is_result, read_manifest
from geo4d.results.provenance import versions
from geo4d.results.reader import load_result
from geo4d.results.verdict import judge_result
from geo4d.run.inputs import describe_model, load_model, open_clip
from geo4d.run.predict import Progress
from geo4d.run.reconstruct import reconstruct
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

CERTAIN = (InputError, GeometryError, CheckpointError, MissingExtraError, PluginError)
"""Failures that a further try would only repeat."""

LOOKED_AT = 16
"""Frames, spread evenly, of which the median of the confidence is taken."""

MOST_WARNINGS = 20


@dataclass(frozen=True)
class Loaded:
    """A model, held for all clips of a worker.

    Attributes:
        predictor: the model.
        config: settings of every run.
        identity: what decides results beside the source, JSON values.
    """

    predictor: Predictor
    config: RunConfig
    identity: dict[str, Any]


def load(settings: Mapping[str, Any]) -> Loaded:
    """Load the model of a batch.

    Args:
        settings: keywords of ``reconstruct``.
    Raises:
        ValueError: unknown or nonsensical settings.
        CheckpointError: the model's weights are missing or unsafe.
    """
    rest = dict(settings)
    model, options = rest.pop("model", "tiny"), rest.pop("model_options", None)
    config = make_config(**rest)
    device = choose_device(config.device, model if isinstance(model, str) else None)
    predictor = load_model(model, options, config, device)
    identity = {
        "model": describe_model(predictor),
        "config": config,
        "device": device,
        "versions": versions(),
    }
    return Loaded(predictor, config, json.loads(json.dumps(plain(identity))))


def run_clip(loaded: Loaded, task: Task, on_progress: Progress) -> dict[str, Any]:
    """Reconstruct one clip, go on with it, or find its result complete and unchanged.

    Returns:
        what is noted about it: ``state`` (``done``, ``unchanged``; ``failed``: certain to fail again; ``tried``: may
        succeed another time; ``busy``: another run writes it; ``no room``: the disk is full), ``exit_code`` and
        ``reason`` as ``geo4d reconstruct`` would have ended, seconds, and what the result is like.
    """
    with _Warnings() as warnings:
        started = time.perf_counter(), time.process_time()
        try:
            note = (
                _publish_one(loaded, task, on_progress) if task.publish else _one(loaded, task, on_progress)
            )
        except Exception as error:
            code, reason = explain(error)
            note = {"state": _state_of(error, code), "exit_code": code, "reason": " ".join(reason.split())}
        note["seconds"] = time.perf_counter() - started[0]
        note["cpu_seconds"] = time.process_time() - started[1]
        give_back_memory()
    return {**note, "warnings": warnings.texts}


def _one(loaded: Loaded, task: Task, on_progress: Progress) -> dict[str, Any]:
    """Make or find the result on the disk, and judge it."""
    return _judged(task, *_finish(loaded, task, on_progress))


def _judged(task: Task, found: Reconstruction, state: str) -> dict[str, Any]:
    note = {"state": state, "exit_code": 0, "reason": "", **describe(found)}
    try:
        judge_result(found).require(keep_going=task.keep_going)
    except Exception as error:
        note["exit_code"], note["reason"] = explain(error)
    return note


def _publish_one(loaded: Loaded, task: Task, on_progress: Progress) -> dict[str, Any]:
    """Find the result in the store; else make it, into the store and off the disk, while nobody else does.

    Raises:
        OutputInUse: another batch or run writes there.
        OutputError: the store does not answer, or refuses.
    """
    from geo4d.results.remote import remove_local, upload_result
    from geo4d.results.remote_lock import StoreLock

    output, published = Path(task.output), {"published": task.publish}
    if not is_result(output) and (found := _find_published(loaded, task)) is not None:
        return {**_judged(task, found, "unchanged"), **published}
    with StoreLock(task.publish, owner=task.owner) as lock:
        if not is_result(output) and (found := _find_published(loaded, task)) is not None:
            return {**_judged(task, found, "unchanged"), **published}  # another batch was at it a moment ago
        note = _one(loaded, task, on_progress)
        lock.require()
        upload_result(output, task.publish)
        remove_local(output)
    return {**note, **published}


def _find_published(loaded: Loaded, task: Task) -> Reconstruction | None:
    """The result in the store, if it is what this batch would make; what is there instead is replaced later."""
    from geo4d.results.remote import load_remote, remote_manifest

    try:
        manifest = remote_manifest(task.publish)
        if manifest is not None and _is_current(loaded, task, manifest):
            return load_remote(task.publish)
    except OutputError as error:
        log.warning("%s; it is made anew", error)
    return None


def _finish(loaded: Loaded, task: Task, on_progress: Progress) -> tuple[Reconstruction, str]:
    output = Path(task.output)
    there = is_result(output)
    if there and _is_current(loaded, task, read_manifest(output)):
        try:
            return load_result(output), "unchanged"
        except OutputError as error:
            log.warning("%s; it is made anew", error)
    keywords = {**vars(loaded.config), "model": loaded.predictor, "on_progress": on_progress}
    try:
        return reconstruct(task.path, output, resume=True, overwrite=there, **keywords), "done"
    except (
        OtherSettings
    ):  # an unfinished run on another source, or of a batch that --overwrite let go on otherwise
        return reconstruct(task.path, output, overwrite=True, **keywords), "done"


def _is_current(loaded: Loaded, task: Task, manifest: Mapping[str, Any]) -> bool:
    """Whether a result is what this batch would make of the source as it is now, by its manifest."""
    provenance = manifest["provenance"]
    if any(provenance.get(part) != loaded.identity[part] for part in ("model", "device", "versions")):
        return False
    made, wanted = dict(provenance.get("config", {})), dict(loaded.identity["config"])
    if wanted["intrinsics"] is None and wanted["fov_deg"] is None:
        made["intrinsics"] = None  # a data set's folder brought its own
    if made != wanted:
        return False
    clip, _ = open_clip(task.path, loaded.config)
    with clip:
        return clip.sha256() == manifest["source"].get("sha256")


def _state_of(error: Exception, code: int) -> str:
    if isinstance(error, OutputInUse):
        return "busy"
    if isinstance(error, DiskFull):
        return "no room"
    return "failed" if isinstance(error, CERTAIN) or code == USAGE_ERROR else "tried"


def describe(result: Reconstruction) -> dict[str, Any]:
    """What the table says about a result: JSON values."""
    num_frames = result.num_frames
    without = len(result.diagnostics.get("frames_without_picture") or ())
    reliable = 1.0 if result.reliable is None else float(np.mean(result.reliable))
    return {
        "frames": num_frames,
        "verdict": judge_result(result).lines()[0].removeprefix("verdict: "),
        "usable_share": 1 - without / num_frames,
        "reliable_share": reliable,
        "confidence_median": confidence_median(result),
        "source_sha256": result.provenance["source"].get("sha256"),
        "peak_memory_bytes": result.diagnostics.get("peak_memory_bytes"),
    }


def confidence_median(result: Reconstruction) -> float | None:
    """Median confidence of the valid pixels of at most ``LOOKED_AT`` frames; None where no pixel is valid."""
    frames = np.unique(np.linspace(0, result.num_frames - 1, LOOKED_AT).round().astype(int))
    values = []
    for t in frames:
        depth = np.asarray(result.depth[int(t)])
        values.append(np.asarray(result.confidence[int(t)])[~np.isnan(depth)])
    known = np.concatenate(values)
    return float(np.median(known)) if known.size else None


class _Warnings(logging.Handler):
    """The warnings of one run, in place of lines on the terminal that nobody could tell apart."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.texts) < MOST_WARNINGS:
            self.texts.append(record.getMessage())

    def __enter__(self) -> "_Warnings":
        root = logging.getLogger()
        self._before = root.handlers[:]
        root.handlers[:] = [self]
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().handlers[:] = self._before
