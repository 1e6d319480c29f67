"""One sequence through a model, and one row of a result from it."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from geo4d.config import make_config
from geo4d.datasets.base import Sequence
from geo4d.errors import GeometryError, InputError
from geo4d.evaluation.average import summarise
from geo4d.evaluation.baselines import baseline_rows, evidence
from geo4d.evaluation.control import ControlPredictor, WatchedPredictor
from geo4d.evaluation.layouts import Layout
from geo4d.evaluation.predicted import Predicted, from_reconstruction, load_predictions
from geo4d.evaluation.protocols import Protocol
from geo4d.evaluation.resume import hash_files
from geo4d.evaluation.score import SequenceScore, score
from geo4d.evaluation.sequences import load_sequence
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.evaluation.trivial import score_trivial
from geo4d.models.base import Predictor

log = logging.getLogger(__name__)


def hold_model(settings: EvaluationSettings) -> Predictor | None:
    """The model, loaded once for all sequences; None for predictions, and where an ablation makes one of its own.

    Raises:
        ValueError: unknown model, or options that it does not have.
        CheckpointError: its weights are missing or unsafe.
    """
    from geo4d.evaluation.ablations import WINDOW_PARTS
    from geo4d.models.base import choose_device
    from geo4d.run.inputs import load_model

    if settings.model is None or (settings.ablate is not None and settings.ablate not in WINDOW_PARTS):
        return None
    config = make_config(**settings.model_settings)
    return load_model(
        settings.model, settings.model_options, config, choose_device(config.device, settings.model)
    )


def run_sequence(
    plan: Layout, settings: EvaluationSettings, name: str, predictor: Predictor | None
) -> dict[str, Any]:
    """Predict and score one sequence; the row of the result.

    Args:
        predictor: of ``hold_model``.
    """
    import time

    sequence = load_sequence(*plan.paths[name], name)
    started = time.perf_counter()
    windows: list[SequenceScore] | None = None
    failure = None
    watched = None
    if predictor is not None and _wants_baselines(plan, settings, sequence):
        watched = WatchedPredictor(predictor)  # it is asked later what evidence the model got
    if settings.predictions is not None:
        predicted = load_predictions(settings.predictions / name, sequence.times_s)
    else:
        try:
            predicted, windows = predict_sequence(sequence, settings, plan.protocol, watched or predictor)
        except GeometryError as error:
            # No geometry is a result: nothing is covered, everything is wrong.
            failure = str(error)
            predicted = _nothing(sequence)
    predicting = time.perf_counter() - started
    result = score(predicted, sequence, plan.protocol) if windows is None else _mean_of_windows(name, windows)
    row = {**dict.fromkeys(plan.columns), **result.to_json()}
    row["num_sequence_frames"] = sequence.num_frames
    row["confidence_sample"] = result.confidence_sample
    row["predicting_seconds"] = round(predicting, 3)
    if failure is not None:
        row["failed"] = failure
    row["dataset_notes"] = list(sequence.notes)
    row["depth_source"], row["pose_source"] = sequence.depth_source, sequence.pose_source
    maker = predicted.provenance.get("model")
    row["weights_sha256"] = maker.get("weights_sha256") if isinstance(maker, Mapping) else None
    row["files"] = hash_files(sequence)
    if plan.benchmark == "synthetic":
        row["trivial"] = score_trivial(sequence, plan.protocol)
    if _wants_baselines(plan, settings, sequence):
        assert plan.protocol.depth is not None
        rows = baseline_rows(
            sequence, plan.protocol.depth, _runs_to_beat(sequence, settings, predicted, watched)
        )
        whole = rows.pop("whole")
        row["baselines"] = rows
        row["whole_median"] = whole
        row |= {metric: value for metric, value in whole.items() if metric.endswith("_evidence")}
    return row


def _wants_baselines(plan: Layout, settings: EvaluationSettings, sequence: Sequence) -> bool:
    return (
        settings.baselines
        and plan.benchmark in ("synthetic", "samples")
        and plan.protocol.depth is not None
        and sequence.depth is not None
        and settings.ablate is None
        and not settings.network_only
    )


def _runs_to_beat(
    sequence: Sequence, settings: EvaluationSettings, whole: Predicted, watched: WatchedPredictor | None
) -> dict[str, Predicted | None]:
    """The whole, and further runs: the model without evidence, and the evidence without the model."""
    rows: dict[str, Predicted | None] = {"whole": whole}
    if watched is None:
        return rows
    if watched.info.evidence != "motion" or not settings.model_settings.get("motion", True):
        return {**rows, "pictures": whole}  # the model sees nothing but pictures: it is this row
    without = replace(settings, model_settings={**settings.model_settings, "motion": False})
    for name, model, changed in (
        ("pictures", watched, without),
        ("control", ControlPredictor(watched), settings),
    ):
        try:
            rows[name] = _reconstructed(sequence, model, changed)
        except GeometryError as error:
            log.warning("%s: %s gave no geometry: %s", sequence.name, name, error)
            rows[name] = _nothing(sequence)
    rows["evidence"] = evidence(sequence, watched.depth)
    return rows


def _nothing(sequence: Sequence) -> Predicted:
    return Predicted(
        frames=np.arange(sequence.num_frames),
        size=sequence.size,
        maps=np.full((sequence.num_frames, *sequence.size), np.nan, np.float32),
        c2w=np.full((sequence.num_frames, 4, 4), np.nan),
    )


def predict_sequence(
    sequence: Sequence,
    settings: EvaluationSettings,
    protocol: Protocol,
    predictor: Predictor | None = None,
) -> tuple[Predicted, list[SequenceScore] | None]:
    """
    Args:
        predictor: the model, where it is loaded already.
    """
    from geo4d.evaluation.ablations import WINDOW_PARTS, ablated_predictor, score_windows

    assert settings.model is not None
    model: Any = predictor or settings.model
    by_window = settings.ablate in WINDOW_PARTS
    if settings.ablate is not None and not by_window:
        model = ablated_predictor(
            settings.model, settings.ablate, dict(settings.model_options), dict(settings.model_settings)
        )
    if settings.network_only or by_window:
        options: dict[str, Any] = (
            {"model_options": dict(settings.model_options)} if isinstance(model, str) else {}
        )
        whole, windows = score_windows(
            sequence, _pictures(sequence), model, _run_settings(sequence, settings), options, protocol
        )
        if by_window:
            kept = WINDOW_PARTS[str(settings.ablate)]
            windows = [
                replace(
                    w, metrics={name: value for name, value in w.metrics.items() if name.startswith(kept)}
                )
                for w in windows
            ]
        return whole, windows
    return _reconstructed(sequence, model, settings), None


def _reconstructed(sequence: Sequence, model: Any, settings: EvaluationSettings) -> Predicted:
    from geo4d.run.reconstruct import reconstruct

    options: dict[str, Any] = (
        {"model_options": dict(settings.model_options)} if isinstance(model, str) else {}
    )
    return from_reconstruction(
        reconstruct(_pictures(sequence), model=model, **options, **_run_settings(sequence, settings))
    )


def _pictures(sequence: Sequence) -> np.ndarray:
    """
    Raises:
        InputError: the sequence has none.
    """
    if sequence.rgb is None:
        raise InputError(
            f"expected frames in {sequence.name} to run a model on, but the dataset folder has none"
        )
    return np.stack([as_uint8(np.asarray(sequence.rgb[t])) for t in range(sequence.num_frames)])


def _run_settings(sequence: Sequence, settings: EvaluationSettings) -> dict[str, Any]:
    """Keywords of ``reconstruct``: the times are those of the data set, uneven ones included."""
    given = {"fps", "times"} & set(settings.model_settings)
    own = {} if given else {"times_s": sequence.times_s}
    return {**own, "split_shots": False, **settings.model_settings}


def as_uint8(image: np.ndarray) -> np.ndarray:
    """8-bit colour of a frame given as uint8 or as float in [0, 1]."""
    return image if image.dtype == np.uint8 else np.round(image * 255).clip(0, 255).astype(np.uint8)


def _mean_of_windows(name: str, windows: list[SequenceScore]) -> SequenceScore:
    mean, _, _ = summarise([window.metrics for window in windows])
    degenerate: dict[str, str] = {}
    for window in windows:
        degenerate |= window.degenerate
    return SequenceScore(
        name,
        mean,
        degenerate,
        (f"mean over {len(windows)} windows of the network, each aligned on its own",),
        sum(window.seconds for window in windows),
    )
