"""Rows of sequences to the JSON of a result: means, medians, what is missing, and where it comes from."""

import json
from dataclasses import asdict
from typing import Any

from geo4d.evaluation.average import summarise
from geo4d.evaluation.baselines import BASELINES
from geo4d.evaluation.confidence import pooled_confidence
from geo4d.evaluation.layouts import Layout
from geo4d.evaluation.settings import EvaluationSettings
from geo4d.evaluation.trivial import summarise_trivial

RESULT_FORMAT = 2

NOT_AVERAGED = ("num_pixels", "num_frames", "depth_scale", "depth_shift", "point_scale", "pose_scale")


def make_result(plan: Layout, settings: EvaluationSettings, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a benchmark leaves: protocol, settings, machine, versions, every sequence, mean and median over them."""
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
        result |= summarise_trivial(rows)
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
