"""What is masked, capped, aligned and averaged before a metric: protocols as data, so that a result can carry its own.

A protocol is a frozen dataclass of plain values; ``dataclasses.asdict`` of it goes into every result file.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.evaluation.l1 import DegenerateInput, fit_scale_l1, fit_scale_shift_l1
from geo4d.evaluation.metrics.depth import Average
from geo4d.evaluation.metrics.poses import PoseAlignment
from geo4d.geometry.fit import fit_scale, fit_scale_median, fit_scale_shift

DepthAlignment = Literal[
    "none", "median_scale", "median_ratio", "scale_l2", "scale_l1", "scale_shift_l2", "scale_shift_l1"
]
Quantity = Literal["depth", "disparity"]


@dataclass(frozen=True)
class DepthProtocol:
    """Attributes:
    min_depth: reference depth must be greater, unit of the reference.
    max_depth: reference depth must be smaller; None: no limit.
    alignment: of the prediction to the reference. ``l1`` is exact, ``l2`` least squares; ``median_scale`` is median over
        median, ``median_ratio`` the median of reference over prediction, which wrong regions move less.
    space: where the fit is done: ``depth``, ``disparity``, or ``native``: what the predictor gives.
    scope: one fit for the ``sequence``, or one per ``frame``.
    weighted: least squares on residuals divided by (reference depth + 1e-6); in depth, for predictions with points.
    clip_min: lower limit of aligned depth; also of aligned and predicted disparity where the fit is in disparity.
    clip_max: upper limit of aligned depth; None: no limit.
    floor: smallest denominator of relative errors.
    average: over pixels or over frames.
    min_pixels: a sequence with fewer valid pixels is degenerate.
    """

    min_depth: float = 0.0
    max_depth: float | None = None
    alignment: DepthAlignment = "median_scale"
    space: Literal["depth", "disparity", "native"] = "depth"
    scope: Literal["sequence", "frame"] = "sequence"
    weighted: bool = False
    clip_min: float = 1e-5
    clip_max: float | None = None
    floor: float = 0.0
    average: Average = "pixel"
    min_pixels: int = 1


@dataclass(frozen=True)
class PointProtocol:
    """Attributes:
    alignment: one factor for all coordinates: none, or least squares over all valid pixels of the sequence.
    weighted: residuals are divided by (reference depth + 1e-6).
    floor: smallest distance that errors are divided by.
    average: over pixels or over frames.
    """

    alignment: Literal["none", "scale_l2"] = "scale_l2"
    weighted: bool = False
    floor: float = 0.01
    average: Average = "frame"


@dataclass(frozen=True)
class PoseProtocol:
    """Attributes:
    alignment: of the camera centres.
    delta: frames between the poses of a relative error.
    """

    alignment: PoseAlignment = "sim3"
    delta: int = 1


@dataclass(frozen=True)
class Protocol:
    """Attributes:
    name: short name, as in result files.
    source: where it comes from.
    depth: None scores no depth; likewise ``points`` and ``poses``.
    consistency: score the depth change along static ground-truth tracks.
    notes: what a reader of the numbers must know.
    """

    name: str
    source: str
    depth: DepthProtocol | None = field(default_factory=DepthProtocol)
    points: PointProtocol | None = None
    poses: PoseProtocol | None = field(default_factory=PoseProtocol)
    consistency: bool = True
    notes: tuple[str, ...] = ()


def valid_depth(
    reference: Float[Tensor, "*b"], protocol: DepthProtocol, mask: Bool[Tensor, "*b"] | None = None
) -> Bool[Tensor, "*b"]:
    """True where the reference counts: finite, inside the limits of the protocol and in ``mask``."""
    valid = torch.isfinite(reference) & (reference > protocol.min_depth)
    if protocol.max_depth is not None:
        valid = valid & (reference < protocol.max_depth)
    return valid if mask is None else valid & mask


def fit_depth(
    predicted: Float[Tensor, " n"],
    reference: Float[Tensor, " n"],
    protocol: DepthProtocol,
    *,
    quantity: Quantity = "depth",
    weighted: bool | None = None,
) -> tuple[float, float]:
    """Scale and shift of the protocol's alignment.

    Args:
        predicted: finite values of ``quantity`` at pixels where the reference is valid.
        reference: z-depth there.
        weighted: overrides the protocol's.
    Returns:
        scale and shift in the space of the fit: see ``fit_space``.
    Raises:
        DegenerateInput: the fit is not determined.
    """
    if predicted.numel() == 0:
        raise DegenerateInput("no valid pixel with a finite prediction")
    space = fit_space(protocol, quantity)
    source = _to_space(predicted, quantity, space, protocol).double()
    target = reference.double() if space == "depth" else 1 / (reference.double() + 1e-7)
    if protocol.alignment == "none":
        return 1.0, 0.0
    if protocol.alignment == "median_scale":
        if float(source.median()) == 0:
            raise DegenerateInput("the median of the prediction is 0")
        return float(fit_scale_median(source, target)), 0.0
    if protocol.alignment == "median_ratio":
        ratio = (target / source)[source > 0]
        if not ratio.numel():
            raise DegenerateInput("no positive prediction")
        return float(ratio.median()), 0.0
    if protocol.alignment == "scale_l1":
        return float(fit_scale_l1(source, target)), 0.0
    if protocol.alignment == "scale_shift_l1":
        scale, shift = fit_scale_shift_l1(source, target)
        return float(scale), float(shift)
    use_weight = protocol.weighted if weighted is None else weighted
    weight = (reference.double() + 1e-6) ** -2 if use_weight and space == "depth" else None
    if protocol.alignment == "scale_l2":
        if not bool((source != 0).any()):
            raise DegenerateInput("all predicted values are 0")
        return float(fit_scale(source, target, weight)), 0.0
    if source.numel() < 2 or bool((source == source[0]).all()):
        raise DegenerateInput("all predicted values are equal")
    scale, shift = fit_scale_shift(source, target, weight)
    return float(scale), float(shift)


def fit_space(protocol: DepthProtocol, quantity: Quantity) -> Quantity:
    """The space in which the protocol aligns a prediction of ``quantity``."""
    return quantity if protocol.space == "native" else protocol.space


def align_depth(
    predicted: Float[Tensor, "*b"],
    scale: float,
    shift: float,
    protocol: DepthProtocol,
    *,
    quantity: Quantity = "depth",
) -> Float[Tensor, "*b"]:
    """Aligned, clipped z-depth in the unit of the reference; NaN where the prediction is not finite."""
    space = fit_space(protocol, quantity)
    aligned = scale * _to_space(predicted, quantity, space, protocol).double() + shift
    if space == "disparity":
        aligned = 1 / aligned.clamp(min=protocol.clip_min)
    aligned = aligned.clamp(min=protocol.clip_min)
    if protocol.clip_max is not None:
        aligned = aligned.clamp(max=protocol.clip_max)
    return torch.where(torch.isfinite(predicted), aligned, torch.nan)


def _to_space(values: Tensor, quantity: Quantity, space: Quantity, protocol: DepthProtocol) -> Tensor:
    if quantity == space:
        return values.clamp(min=protocol.clip_min) if space == "disparity" else values
    return torch.where(values > 0, 1 / values, torch.nan)


def fit_points(
    predicted: Float[Tensor, "n 3"], reference: Float[Tensor, "n 3"], protocol: PointProtocol
) -> float:
    """Factor of the protocol's point alignment.

    Raises:
        DegenerateInput: no point, or all predicted points are 0.
    """
    if protocol.alignment == "none":
        return 1.0
    p, r = predicted.double(), reference.double()
    if not bool((p != 0).any()):
        raise DegenerateInput("no valid pixel with a predicted point other than 0")
    weight = ((r[:, 2:] + 1e-6) ** -2).expand_as(p).reshape(-1) if protocol.weighted else None
    return float(fit_scale(p.reshape(-1), r.reshape(-1), weight))


def geo4d(*, max_depth: float | None = 70.0) -> Protocol:
    """Geo4D's released evaluation; its KITTI run has no cap (``max_depth=None``)."""
    return Protocol(
        name="geo4d" if max_depth is not None else "geo4d-uncapped",
        source="Geo4D, released evaluation scripts (dust3r/depth_eval.py, dust3r/utils/vo_eval.py)",
        depth=DepthProtocol(max_depth=max_depth, alignment="scale_shift_l1", clip_max=max_depth),
        notes=(
            "The released scripts approach the L1 optimum with 5,000 (KITTI: 1,000) Adam steps; here it is exact.",
            "Aligned depth is cut at 1e-5 before all metrics; the scripts do so for the logarithm only, and count "
            "negative depth as right in delta.",
            "The released table weighs sequences by valid pixels for depth (mean_by_pixels), by one for poses (mean).",
        ),
    )


def geometrycrafter(*, max_depth: float, weighted: bool) -> Protocol:
    """GeometryCrafter's released evaluation: scale-invariant points, affine-invariant depth.

    Args:
        max_depth: per data set: ScanNet and GMU 10, Sintel 70, KITTI 80, Monkaa 100, DDAD 250.
        weighted: on for Sintel, KITTI and Monkaa.
    """
    return Protocol(
        name=f"geometrycrafter-{max_depth:g}{'-weighted' if weighted else ''}",
        source="GeometryCrafter, released evaluation scripts (evaluation/eval.py, eval_depth.py, metrics.py)",
        depth=DepthProtocol(
            min_depth=1e-3,
            max_depth=max_depth,
            alignment="scale_shift_l2",
            space="native",
            weighted=weighted,
            clip_min=1e-3,
            clip_max=max_depth,
            floor=0.01,
            average="frame",
            min_pixels=10,
        ),
        points=PointProtocol(weighted=weighted),
        notes=(
            "Frames without a valid pixel are left out; the released point score is NaN with such a frame.",
        ),
    )


PROTOCOLS: dict[str, Protocol] = {
    "geo4d": geo4d(),
    "geo4d-uncapped": geo4d(max_depth=None),
    "median": Protocol(
        name="median",
        source="one factor per sequence: median of the reference over median of the prediction",
    ),
    "median-per-frame": Protocol(
        name="median-per-frame",
        source="one factor per frame: median of the reference over median of the prediction",
        depth=DepthProtocol(scope="frame"),
    ),
    "scale": Protocol(
        name="scale",
        source="one least-absolute-deviations factor per sequence",
        depth=DepthProtocol(alignment="scale_l1"),
        points=PointProtocol(average="pixel"),
    ),
    "metric": Protocol(
        name="metric",
        source="no alignment of depth; SE(3) alignment of the cameras",
        depth=DepthProtocol(alignment="none"),
        points=PointProtocol(alignment="none", average="pixel"),
        poses=PoseProtocol(alignment="se3"),
    ),
    "affine-disparity": Protocol(
        name="affine-disparity",
        source="scale and shift in disparity by least absolute deviations, one per sequence, reference nearer than 70",
        depth=DepthProtocol(
            max_depth=70.0, alignment="scale_shift_l1", space="disparity", clip_min=1e-3, clip_max=70.0
        ),
    ),
}
"""Protocols by name. The papers' per-dataset variants are made by ``geo4d`` and ``geometrycrafter``."""
