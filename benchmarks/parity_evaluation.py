"""Recorded results of GeometryCrafter's released evaluation against ``geo4d.evaluation``."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from parity import Case, Comparison, Limit, compare

from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics.depth import depth_scores, depth_sums
from geo4d.evaluation.metrics.points import point_scores, point_sums
from geo4d.evaluation.protocols import (
    DepthProtocol,
    PointProtocol,
    align_depth,
    fit_depth,
    fit_points,
    geometrycrafter,
    valid_depth,
)

LIMIT = Limit(max_abs=1e-5)
SCALE_LIMIT = Limit(rel_l2=1e-5)
_FUNCTIONS = {
    "fn_abs_relative_difference": "abs_rel",
    "fn_squared_relative_difference": "sq_rel",
    "fn_rmse_linear": "rmse",
    "fn_rmse_log": "rmse_log",
    "fn_log10": "log10",
    "fn_delta1_acc": "delta_125",
    "fn_delta2_acc": "delta_125_2",
    "fn_delta3_acc": "delta_125_3",
    "fn_i_rmse": "irmse",
    "fn_silog_rmse": "silog",
}


def check_evaluation(file: Path, reference_dir: Path) -> list[Comparison]:
    """Every recorded quantity of one evaluation file; a key that no rule names is an error."""
    recorded = dict(np.load(file))
    inputs = {
        name: torch.from_numpy(recorded.pop(name).astype(np.float32))
        for name in ("gt_point_map", "pred_point_map", "pred_disparity")
    }
    mask = torch.from_numpy(recorded.pop("gt_mask"))
    recorded.pop("pred_mask")  # never used by the released evaluation
    results = []
    for name, value in recorded.items():
        limit = SCALE_LIMIT if name.startswith("scale_") else LIMIT
        results.append(compare(name, _compute(name, inputs, mask), value, limit))
    return results


def _compute(name: str, inputs: dict[str, torch.Tensor], mask: torch.Tensor) -> np.ndarray:
    points, predicted = inputs["gt_point_map"], inputs["pred_point_map"]
    if match := re.fullmatch(r"eval_point_weight(\d)", name):
        return _points(predicted, points, mask, bool(int(match[1])))
    if match := re.fullmatch(r"scale_(points|depth)_weight(\d)", name):
        return np.array(_scale(predicted, points, mask, bool(int(match[2])), match[1]))
    if match := re.fullmatch(r"scale_shift_weight(\d)_max(\d+)", name):
        return _depth(predicted[..., 2], points[..., 2], mask, bool(int(match[1])), float(match[2]), "depth")[
            0
        ]
    if match := re.fullmatch(r"eval_depth_pointmap_weight(\d)_max(\d+)", name):
        return _depth(predicted[..., 2], points[..., 2], mask, bool(int(match[1])), float(match[2]), "depth")[
            1
        ]
    if match := re.fullmatch(r"eval_depth_disparity_max(\d+)", name):
        return _depth(inputs["pred_disparity"], points[..., 2], mask, False, float(match[1]), "disparity")[1]
    if match := re.fullmatch(r"eval_depth_depth_max(\d+)", name):
        return _depth(predicted[..., 2], points[..., 2], mask, False, float(match[1]), "depth")[1]
    if name.startswith("fn_"):
        return np.array(_function(name, predicted * 2.6, points, mask))
    raise LookupError(f"no rule for the recorded quantity {name}")


def _scale(
    predicted: torch.Tensor, points: torch.Tensor, mask: torch.Tensor, weighted: bool, which: str
) -> float:
    if which == "points":
        return fit_points(predicted[mask], points[mask], PointProtocol(weighted=weighted))
    protocol = DepthProtocol(alignment="scale_l2", weighted=weighted)
    return fit_depth(predicted[..., 2][mask], points[..., 2][mask], protocol)[0]


def _points(predicted: torch.Tensor, points: torch.Tensor, mask: torch.Tensor, weighted: bool) -> np.ndarray:
    """The released average over frames divides by 0 for a frame without a valid pixel; ours leaves it out."""
    if not bool(mask.any(-1).any(-1).all()):
        return np.full(4, np.nan)
    aligned = predicted * _scale(predicted, points, mask, weighted, "points")
    point = point_scores(point_sums(aligned, points, mask))
    z = predicted[..., 2] * _scale(predicted, points, mask, weighted, "depth")
    depth = depth_scores(depth_sums(z, points[..., 2], mask, floor=0.01), average="frame")
    return np.array([point.point_rel, point.point_delta, depth.abs_rel, depth.delta_125], np.float64)


def _depth(
    predicted: torch.Tensor,
    reference: torch.Tensor,
    mask: torch.Tensor,
    weighted: bool,
    max_depth: float,
    quantity: str,
) -> tuple[np.ndarray, np.ndarray]:
    protocol = geometrycrafter(max_depth=max_depth, weighted=weighted).depth
    assert protocol is not None
    valid = valid_depth(reference, protocol, mask)
    if int(valid.sum()) < protocol.min_pixels:
        return np.zeros(2), np.zeros(2)  # recorded as 0; ``score`` calls it degenerate
    if quantity == "disparity":
        protocol = replace(protocol, space="disparity")
    scale, shift = fit_depth(predicted[valid], reference[valid], protocol, quantity=quantity)  # type: ignore[arg-type]
    aligned = align_depth(predicted, scale, shift, protocol, quantity=quantity)  # type: ignore[arg-type]
    scores = depth_scores(
        depth_sums(aligned, reference.double(), valid, floor=protocol.floor), average="frame"
    )
    return np.array([scale, shift]), np.array([scores.abs_rel, scores.delta_125], np.float64)


def _function(name: str, predicted: torch.Tensor, points: torch.Tensor, mask: torch.Tensor) -> float:
    """The released metric functions, without alignment, depth at least 1e-3, on frames with valid pixels."""
    depth = predicted[..., 2].clamp(min=1e-3)
    if name in _FUNCTIONS:
        scores = depth_scores(depth_sums(depth, points[..., 2], mask), average="frame")
        return float(asdict(scores)[_FUNCTIONS[name]])
    if name in ("fn_depth_rel_error", "fn_depth_inlier_percent"):
        floored = depth_scores(depth_sums(depth, points[..., 2], mask, floor=0.01), average="frame")
        value = floored.abs_rel if name == "fn_depth_rel_error" else floored.delta_125
    elif name in ("fn_point_rel_error", "fn_point_inlier_percent"):
        point = point_scores(point_sums(predicted, points, mask))
        value = point.point_rel if name == "fn_point_rel_error" else point.point_delta
    else:
        raise LookupError(f"no rule for the recorded quantity {name}")
    if value is None:
        raise DegenerateInput(name)
    return value


CASES = {"evaluation": Case(check_evaluation)}
