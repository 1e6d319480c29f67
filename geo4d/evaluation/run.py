"""Predictor (or a folder of predictions) x benchmark -> result with provenance.

``score`` and ``load_ground_truth`` are what other commands need to score one reconstruction.
"""

import hashlib
import json
import logging
import statistics
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geo4d.datasets.base import Sequence, Tracks
from geo4d.datasets.catalogue import READERS, load_ground_truth, load_reader
from geo4d.errors import GeometryError, InputError
from geo4d.evaluation.baselines import BASELINES, baseline_rows, evidence
from geo4d.evaluation.benchmarks import (
    BENCHMARKS,
    CAMERA_COLUMNS,
    DEPTH_COLUMNS,
    POSE_COLUMNS,
    SAMPLES,
    SAMPLES_PROTOCOL,
    SYNTHETIC_PROTOCOL,
    Benchmark,
)
from geo4d.evaluation.confidence import pooled_confidence
from geo4d.evaluation.control import ControlPredictor, WatchedPredictor
from geo4d.evaluation.predicted import Predicted, from_reconstruction, load_predictions
from geo4d.evaluation.protocols import PROTOCOLS, Protocol
from geo4d.evaluation.score import SequenceScore, score
from geo4d.formats.files import new_file
from geo4d.formats.hashes import sha256_of
from geo4d.geometry.poses import inverse, transform

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

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
RESULT_FORMAT = 2
NUM_TRACKS = 1024
"""Surface points that the synthetic benchmark follows for ``depth_change``."""
MOST_LISTED = 128
"""Files of a sequence whose hashes stand in the result one by one; that of the list covers all."""
NOT_AVERAGED = ("num_pixels", "num_frames", "depth_scale", "depth_shift", "point_scale", "pose_scale")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how it runs.

    Attributes:
        model: name of the predictor, or None for predictions from a folder.
        predictions: folder with one folder per sequence, or None for a model.
        model_settings: fields of ``RunConfig`` for ``reconstruct``, JSON values.
        model_options: options of the model's own pipeline, JSON values.
        ablate: part of the model that is taken away; see ``geo4d.evaluation.ablations``.
        network_only: score every window of the network on its own, without fusion.
        protocol: name of a protocol that replaces the benchmark's own, or None.
        sequences: only these, or None.
        limit: only the first so many sequences, or None.
        jobs: processes; each runs its own sequences.
        baselines: score what must be beaten beside the model, on ``synthetic`` and ``samples``; two more runs each.
    """

    model: str | None = "tiny"
    predictions: Path | None = None
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    ablate: str | None = None
    network_only: bool = False
    protocol: str | None = None
    sequences: tuple[str, ...] | None = None
    limit: int | None = None
    jobs: int = 1
    baselines: bool = True

    def __post_init__(self) -> None:
        if (self.model is None) == (self.predictions is None):
            raise ValueError("expected either a model or a folder of predictions, got both or neither")
        if self.jobs < 1:
            raise ValueError(f"expected at least one job, got {self.jobs}")
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ValueError(f"expected one of {', '.join(PROTOCOLS)} as the protocol, got {self.protocol!r}")


@dataclass(frozen=True)
class _Plan:
    """A benchmark laid out: what can be sent to another process.

    Attributes:
        benchmark: name.
        title: one line.
        protocol: of scoring.
        columns: of the table.
        paths: sequence -> (reader or benchmark that loads it, path as text).
        published: key of published rows.
        sources: sequence -> public source, for benchmarks that are put together by hand.
    """

    benchmark: str
    title: str
    protocol: Protocol
    columns: tuple[str, ...]
    paths: dict[str, tuple[str, str]]
    published: str | None = None
    sources: dict[str, str] = field(default_factory=dict)
    mean_by_pixels: bool = False


def benchmark_names() -> tuple[str, ...]:
    """Everything that ``evaluate`` knows: the papers' benchmarks, our own two, and any reader by name."""
    return (*BENCHMARKS, "synthetic", "samples", *(name for name in READERS if name not in BENCHMARKS))


def evaluate(
    benchmark: str,
    root: Path | None,
    settings: EvaluationSettings,
    *,
    work: Path | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a benchmark.

    Args:
        benchmark: a name of ``benchmark_names``.
        root: folder of the dataset; not needed for ``synthetic``.
        settings: model or predictions, and how to run.
        work: folder that keeps finished sequences; a second call with equal settings goes on from there.
        on_progress: called with a stage, sequences done and sequences in all.
    Returns:
        the result: JSON values, the layout is in ``docs/protocols.md``.
    Raises:
        InputError: the dataset or the predictions are missing or damaged.
        ValueError: unknown benchmark or nonsensical settings.
    """
    settings = with_benchmark_options(benchmark, settings)
    plan = _plan(benchmark, root, settings)
    fingerprint = _fingerprint(plan, settings)
    rows: dict[str, dict[str, Any]] = {}
    for name in plan.paths:
        row = _load_row(work, name, fingerprint)
        if row is not None:
            rows[name] = row
    todo = [name for name in plan.paths if name not in rows]
    done = len(rows)
    progress = on_progress or (lambda stage, finished, total: None)
    progress("evaluate", done, len(plan.paths))
    for name, row in _run_all(plan, settings, todo):
        rows[name] = row
        done += 1
        _save_row(work, name, fingerprint, row)
        progress("evaluate", done, len(plan.paths))
    return _result(plan, settings, [rows[name] for name in plan.paths])


def with_benchmark_options(benchmark: str, settings: EvaluationSettings) -> EvaluationSettings:
    """The settings with the options that the benchmark's paper sets for this model; those of the user win."""
    if settings.model is None or benchmark not in BENCHMARKS:
        return settings
    options = BENCHMARKS[benchmark].options_for(settings.model)
    return replace(settings, model_options={**options, **settings.model_options})


def _plan(benchmark: str, root: Path | None, settings: EvaluationSettings) -> _Plan:
    if benchmark == "synthetic":
        from geo4d.synthetic.heldout import NUM_SEQUENCES, heldout_name

        paths = {heldout_name(i): ("synthetic-heldout", str(i)) for i in range(NUM_SEQUENCES)}
        plan = _Plan(
            "synthetic",
            "64 held-out procedural sequences with exact ground truth",
            SYNTHETIC_PROTOCOL,
            (*DEPTH_COLUMNS, *POSE_COLUMNS, *CAMERA_COLUMNS),
            paths,
        )
    elif root is None:
        raise ValueError(f"expected --root DIR with the dataset of benchmark {benchmark}, got none")
    elif benchmark == "samples":
        present = {name: reader for name, (reader, _) in SAMPLES.items() if (root / name).is_dir()}
        if not present:
            raise InputError(
                f"expected some of the folders {', '.join(SAMPLES)} in {root}, found none; "
                "docs/datasets.md lists where each comes from"
            )
        for name in SAMPLES.keys() - present.keys():
            log.warning("samples: %s is not in %s and is left out", name, root)
        plan = _Plan(
            "samples",
            "small public sequences with ground truth",
            SAMPLES_PROTOCOL,
            (*DEPTH_COLUMNS, *POSE_COLUMNS, *CAMERA_COLUMNS),
            {name: (reader, str(root / name)) for name, reader in present.items()},
            sources={name: SAMPLES[name][1] for name in present},
        )
    elif benchmark in BENCHMARKS:
        row = BENCHMARKS[benchmark]
        if settings.sequences is not None:
            row = Benchmark(**{**vars(row), "sequences": settings.sequences})
        paths = {name: ("benchmark:" + benchmark, str(path)) for name, path in row.find(root).items()}
        plan = _Plan(
            benchmark, row.title, row.protocol, row.columns, paths, row.published, {}, row.mean_by_pixels
        )
    elif benchmark in READERS:
        reader = load_reader(benchmark)
        from geo4d.datasets.catalogue import find_sequences

        paths = {name: (benchmark, str(path)) for name, path in find_sequences(reader, root).items()}
        plan = _Plan(
            benchmark,
            f"all of {reader.title}",
            PROTOCOLS["median"],
            (*DEPTH_COLUMNS, *POSE_COLUMNS, *CAMERA_COLUMNS),
            paths,
        )
    else:
        raise ValueError(
            f"expected one of {', '.join(benchmark_names())} as the benchmark, got {benchmark!r}"
        )
    paths = plan.paths
    if settings.sequences is not None:
        unknown = [name for name in settings.sequences if name not in paths]
        if unknown:
            raise ValueError(f"expected sequences among {', '.join(paths)}, got {', '.join(unknown)}")
        paths = {name: paths[name] for name in settings.sequences}
    paths = dict(list(paths.items())[: settings.limit])
    protocol = plan.protocol if settings.protocol is None else PROTOCOLS[settings.protocol]
    return _Plan(**{**vars(plan), "paths": paths, "protocol": protocol})


def load_sequence(kind: str, path: str, name: str) -> Sequence:
    """A sequence of a plan: by benchmark, by reader, or drawn."""
    if kind == "synthetic-heldout":
        return heldout_sequence(int(path))
    if kind.startswith("benchmark:"):
        return BENCHMARKS[kind.removeprefix("benchmark:")].load(Path(path), name)
    reader = load_reader(kind)
    found = reader.find(Path(path))
    # A sample folder holds one sequence, whose inner name may differ from the folder's.
    location = found.get(name) or (next(iter(found.values())) if len(found) == 1 else Path(path))
    return reader.load(location, name)


def heldout_sequence(number: int) -> Sequence:
    """One sequence of the frozen procedural set."""
    from geo4d.synthetic.heldout import SIZE, heldout_configs, heldout_name
    from geo4d.synthetic.render import make_scene, render_clip

    clip = render_clip(make_scene(heldout_configs()[number]), SIZE, num_tracks=NUM_TRACKS)
    assert clip.tracks is not None
    from_world = inverse(clip.c2w.double())
    track_depth = transform(from_world, clip.tracks.points.double().transpose(0, 1))[..., 2]
    depth = torch.where(clip.valid, clip.depth, torch.inf).numpy()
    return Sequence(
        name=heldout_name(number),
        dataset="synthetic",
        times_s=clip.times_s.double().numpy(),
        size=clip.size,
        rgb=clip.rgb.numpy(),
        depth=depth,
        intrinsics=clip.intrinsics.double().numpy(),
        c2w=clip.c2w.double().numpy(),
        dynamic=clip.dynamic.numpy(),
        tracks=Tracks(
            clip.tracks.pixels.transpose(0, 1).numpy(),
            track_depth.float().numpy(),
            clip.tracks.visible.transpose(0, 1).numpy(),
        ),
        depth_source="rendered",
        pose_source="rendered",
    )


def _run_all(
    plan: _Plan, settings: EvaluationSettings, names: list[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    if settings.jobs == 1 or len(names) <= 1:
        for name in names:
            yield name, run_sequence(plan, settings, name)
        return
    with ProcessPoolExecutor(
        settings.jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        futures = {pool.submit(run_sequence, plan, settings, name): name for name in names}
        for future in as_completed(futures):
            yield futures[future], future.result()


def run_sequence(plan: _Plan, settings: EvaluationSettings, name: str) -> dict[str, Any]:
    """Predict and score one sequence; the row of the result."""
    import time

    sequence = load_sequence(*plan.paths[name], name)
    started = time.perf_counter()
    windows: list[SequenceScore] | None = None
    failure = None
    watched = _watched(settings) if _wants_baselines(plan, settings, sequence) else None
    if settings.predictions is not None:
        predicted = load_predictions(settings.predictions / name, sequence.times_s)
    else:
        try:
            predicted, windows = _predict(sequence, settings, plan.protocol, watched)
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
        row["trivial"] = _trivial(sequence, plan.protocol)
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


def _wants_baselines(plan: _Plan, settings: EvaluationSettings, sequence: Sequence) -> bool:
    return (
        settings.baselines
        and plan.benchmark in ("synthetic", "samples")
        and plan.protocol.depth is not None
        and sequence.depth is not None
        and settings.ablate is None
        and not settings.network_only
    )


def _watched(settings: EvaluationSettings) -> WatchedPredictor | None:
    """The model, loaded as ``reconstruct`` does, to be asked later what evidence it got; None for predictions."""
    from geo4d.models.base import load_predictor

    if settings.model is None:
        return None
    run, options = settings.model_settings, dict(settings.model_options)
    if run.get("num_steps") is not None:
        options["num_steps"] = run["num_steps"]
    loading = {name: run.get(name) for name in ("weights", "device", "dtype")}
    return WatchedPredictor(load_predictor(settings.model, **loading, **options))


def _runs_to_beat(
    sequence: Sequence, settings: EvaluationSettings, whole: Predicted, watched: WatchedPredictor | None
) -> dict[str, Predicted | None]:
    """The whole, and further runs: the model without evidence, and the evidence without the model."""
    rows: dict[str, Predicted | None] = {"whole": whole}
    if watched is None:
        return rows
    if watched.info.prior != "motion" or not settings.model_settings.get("motion", True):
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


def _predict(
    sequence: Sequence,
    settings: EvaluationSettings,
    protocol: Protocol,
    watched: WatchedPredictor | None = None,
) -> tuple[Predicted, list[SequenceScore] | None]:
    """
    Args:
        watched: the model, where it is loaded already.
    """
    from geo4d.evaluation.ablations import WINDOW_PARTS, ablated_predictor, score_windows

    assert settings.model is not None
    model: Any = watched or settings.model
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


def summarise(
    rows: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, int]]:
    """Mean, median and number of determined values of every metric; None values are counted out, never as 0."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
                continue
            values.setdefault(name, [])
            if value is not None:
                values[name].append(float(value))
    mean = {name: statistics.fmean(found) if found else None for name, found in values.items()}
    median = {name: statistics.median(found) if found else None for name, found in values.items()}
    return mean, median, {name: len(found) for name, found in values.items()}


def _result(plan: _Plan, settings: EvaluationSettings, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from geo4d.results.provenance import machine, versions

    samples = [row["confidence_sample"] for row in rows if row.get("confidence_sample")]
    rows = [{key: value for key, value in row.items() if key != "confidence_sample"} for row in rows]
    metrics = [{key: value for key, value in row.items() if _is_metric(key, value)} for row in rows]
    mean, median, counts = summarise(metrics)
    weights = sorted({row["weights_sha256"] for row in rows if row.get("weights_sha256")})
    result: dict[str, Any] = {
        "format": RESULT_FORMAT,
        "benchmark": plan.benchmark,
        "title": plan.title,
        "protocol": json.loads(json.dumps(asdict(plan.protocol))),
        "model": settings.model,
        "predictions": None if settings.predictions is None else settings.predictions.name,
        "weights_sha256": weights[0] if len(weights) == 1 else weights or None,
        "model_settings": dict(settings.model_settings),
        "model_options": dict(settings.model_options),
        "ablate": settings.ablate,
        "network_only": settings.network_only,
        "seed": settings.model_settings.get("seed", 0) if settings.model is not None else None,
        "versions": versions(),
        "machine": machine(),
        "columns": list(plan.columns),
        "published": plan.published,
        "num_sequences": len(rows),
        "sequences": rows,
        "mean": mean,
        "median": median,
        "counts": counts,
        "degenerate": [
            {"name": row["name"], "part": part, "reason": reason}
            for row in rows
            for part, reason in row["degenerate"].items()
        ],
        "failed": [{"name": row["name"], "reason": row["failed"]} for row in rows if "failed" in row],
        "sources": plan.sources,
        "confidence": pooled_confidence(samples),
    }
    if any("baselines" in row for row in rows):
        result["baselines"] = _baseline_summary(rows)
    if plan.mean_by_pixels:
        result["mean_by_pixels"] = _mean_by_pixels(rows)
    if plan.benchmark == "synthetic":
        from geo4d.synthetic.heldout import definition_hash

        result["definition_sha256"] = definition_hash()
        result |= _trivial_summary(rows)
    return result


def _baseline_summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Means over the sequences of every row to beat, and of the whole under the same one factor."""
    result = {}
    for name in ("whole", *BASELINES):
        found = [
            row["whole_median"] if name == "whole" else row["baselines"][name]
            for row in rows
            if "baselines" in row
        ]
        mean, median, counts = summarise(found)
        result[name] = {**mean, "median": median, "counts": counts}
    return result


def _is_metric(key: str, value: Any) -> bool:
    if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
        return False
    return key not in (*NOT_AVERAGED, "num_sequence_frames", "weights_sha256")


def _mean_by_pixels(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_125", "delta_125_2", "delta_125_3", "coverage")
    result: dict[str, float | None] = {}
    for name in names:
        pairs = [(row[name], row["num_pixels"]) for row in rows if row.get(name) is not None]
        total = sum(weight for _, weight in pairs)
        result[name] = sum(value * weight for value, weight in pairs) / total if total else None
    return result


# The trivial predictors of the synthetic benchmark ----------------------------------------------------------------


def load_template() -> np.ndarray:
    """[h, w] mean disparity of training scenes (each divided by its own mean), of unknown scale and shift."""
    from importlib import resources

    with resources.as_file(resources.files("geo4d.evaluation").joinpath("data/template.npz")) as path:
        return np.asarray(np.load(path)["disparity"], np.float32)


def _trivial(sequence: Sequence, protocol: Protocol) -> dict[str, Any]:
    template = load_template()
    still = Predicted(
        frames=np.arange(sequence.num_frames),
        size=template.shape,  # type: ignore[arg-type]
        maps=np.broadcast_to(template, (sequence.num_frames, *template.shape)),
        quantity="disparity",
        scale_kind="affine",
        c2w=np.tile(np.eye(4), (sequence.num_frames, 1, 1)),
    )
    scores = score(still, sequence, protocol).metrics
    return {
        "template": {name: scores.get(name) for name in ("abs_rel", "delta_125")},
        "static": {name: scores.get(name) for name in ("ate", "rpe_trans", "rpe_rot_deg", "rot_deg")},
    }


def _trivial_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for kind in ("template", "static"):
        mean, median, _ = summarise([row["trivial"][kind] for row in rows])
        result[kind] = {**mean, "median": median}
    return result


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
    plan = _plan(benchmark, root, settings)
    count = 0
    for name, (kind, path) in plan.paths.items():
        sequence = load_sequence(kind, path, name)
        if settings.predictions is not None:
            predicted = load_predictions(settings.predictions / name, sequence.times_s)
        else:
            predicted, _ = _predict(sequence, settings, plan.protocol)
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


# Provenance and resume -----------------------------------------------------------------------------------------------


def hash_files(sequence: Sequence) -> dict[str, Any]:
    """SHA-256 of every file a sequence reads (at most ``MOST_LISTED`` listed), and of the list of all of them."""
    if not sequence.files:
        return {"count": 0, "sha256": None, "list": []}
    files = sorted(set(sequence.files))
    base = Path(*_common_parts(files))
    entries = []
    for path in files:
        entries.append((path.relative_to(base).as_posix(), sha256_of(path)))
    total = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in entries).encode()).hexdigest()
    listed = [{"file": name, "sha256": digest} for name, digest in entries[:MOST_LISTED]]
    return {"count": len(entries), "sha256": total, "list": listed}


def _common_parts(files: list[Path]) -> tuple[str, ...]:
    first, last = files[0].parent.parts, files[-1].parent.parts
    shared = [a for a, b in zip(first, last, strict=False) if a == b]
    for index, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            shared = list(first[:index])
            break
    return tuple(shared)


def _fingerprint(plan: _Plan, settings: EvaluationSettings) -> str:
    not_decisive = ("jobs", "limit", "sequences")
    facts = {
        "format": RESULT_FORMAT,
        "benchmark": plan.benchmark,
        "protocol": asdict(plan.protocol),
        "settings": {name: str(value) for name, value in vars(settings).items() if name not in not_decisive},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _row_path(work: Path, name: str) -> Path:
    return work / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def _load_row(work: Path | None, name: str, fingerprint: str) -> dict[str, Any] | None:
    if work is None or not _row_path(work, name).is_file():
        return None
    try:
        kept = json.loads(_row_path(work, name).read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        log.warning("%s in %s is damaged and is computed again", name, work)
        return None
    return kept["row"] if kept.get("fingerprint") == fingerprint and kept.get("name") == name else None


def _save_row(work: Path | None, name: str, fingerprint: str, row: dict[str, Any]) -> None:
    if work is None:
        return
    work.mkdir(parents=True, exist_ok=True)
    with new_file(_row_path(work, name)) as temporary:
        temporary.write_text(
            json.dumps({"name": name, "fingerprint": fingerprint, "row": row}), encoding="utf-8"
        )
