"""Predictor (or a folder of predictions) x benchmark -> result with provenance.

``score`` and ``load_ground_truth`` are what other commands need to score one reconstruction.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geo4d.batch.settings import WorkerSettings
from geo4d.datasets.catalogue import load_ground_truth
from geo4d.evaluation.average import summarise
from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.evaluation.layouts import benchmark_names, lay_out
from geo4d.evaluation.predict import predict_sequence
from geo4d.evaluation.predicted import from_reconstruction, load_predictions
from geo4d.evaluation.protocols import PROTOCOLS
from geo4d.evaluation.result import make_result
from geo4d.evaluation.resume import load_row, mark_of, save_row
from geo4d.evaluation.score import SequenceScore, score
from geo4d.evaluation.sequences import load_sequence
from geo4d.evaluation.settings import EvaluationSettings, with_benchmark_options
from geo4d.evaluation.workers import ALONE, run_sequences

log = logging.getLogger(__name__)


__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "EvaluationSettings",
    "SequenceScore",
    "benchmark_names",
    "evaluate",
    "from_reconstruction",
    "load_ground_truth",
    "load_predictions",
    "predictions_for_plots",
    "score",
    "summarise",
]

Progress = Callable[[str, int, int], None]


def evaluate(
    benchmark: str,
    root: Path | None,
    settings: EvaluationSettings,
    *,
    how: WorkerSettings = ALONE,
    work: Path | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a benchmark.

    Args:
        benchmark: a name of ``benchmark_names``.
        root: folder of the dataset; not needed for ``synthetic``.
        settings: model or predictions, and how to score.
        how: workers over which sequences are spread; the same rows at the same number of threads, but for seconds.
        work: folder that keeps finished sequences; a second call with equal settings goes on from there.
        on_progress: called with a stage, sequences done and sequences in all.
    Returns:
        the result: JSON values, the layout is in ``docs/protocols.md``.
    Raises:
        InputError: the dataset or the predictions are missing or damaged.
        ValueError: unknown benchmark or nonsensical settings.
        BatchError: a sequence failed in a worker, with its exit code, or workers cannot be had.
        ResourceError: workers die over and over.
    """
    settings = with_benchmark_options(benchmark, settings)
    plan = lay_out(benchmark, None if root is None else root.absolute(), settings)
    fingerprint = mark_of(plan, settings)
    rows: dict[str, dict[str, Any]] = {}
    for name in plan.paths:
        row = load_row(work, name, fingerprint)
        if row is not None:
            rows[name] = row
    todo = [name for name in plan.paths if name not in rows]
    done = len(rows)
    progress = on_progress or (lambda stage, finished, total: None)
    progress("evaluate", done, len(plan.paths))
    for name, row in run_sequences(plan, settings, todo, how):
        rows[name] = row
        done += 1
        save_row(work, name, fingerprint, row)
        progress("evaluate", done, len(plan.paths))
    return make_result(plan, settings, [rows[name] for name in plan.paths])


def predictions_for_plots(
    benchmark: str, root: Path | None, settings: EvaluationSettings, folder: Path
) -> int:
    """Error maps and camera paths of every sequence of a benchmark, as pictures; says how many.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from geo4d.evaluation.l1 import DegenerateInput
    from geo4d.evaluation.plots import save_error_maps, save_trajectories

    settings = with_benchmark_options(benchmark, settings)
    plan = lay_out(benchmark, root, settings)
    count = 0
    for name, (kind, path) in plan.paths.items():
        sequence = load_sequence(kind, path, name)
        if settings.predictions is not None:
            predicted = load_predictions(settings.predictions / name, sequence.times_s)
        else:
            predicted, _ = predict_sequence(sequence, settings, plan.protocol)
        stem = name.replace("/", "_")
        if plan.protocol.depth is not None and sequence.depth is not None and predicted.maps is not None:
            try:
                save_error_maps(folder / f"{stem}_depth.png", predicted, sequence, plan.protocol)
                count += 1
            except DegenerateInput as reason:
                log.warning("%s: no error map: %s", name, reason)
        if plan.protocol.poses is not None and sequence.c2w is not None and predicted.c2w is not None:
            save_trajectories(folder / f"{stem}_cameras.png", predicted, sequence, plan.protocol)
            count += 1
    return count
