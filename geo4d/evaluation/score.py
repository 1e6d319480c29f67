"""One sequence against its ground truth under one protocol: functions of arrays, no models, no folders."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from geo4d.datasets.base import Sequence
from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics.intrinsics import intrinsics_scores
from geo4d.evaluation.predicted import Predicted, from_reconstruction
from geo4d.evaluation.protocols import Protocol
from geo4d.evaluation.scoring.depth import score_depth
from geo4d.evaluation.scoring.frames import spread
from geo4d.evaluation.scoring.points import score_points
from geo4d.evaluation.scoring.poses import score_poses
from geo4d.evaluation.scoring.scaled import score_scaled
from geo4d.types import Reconstruction


@dataclass(frozen=True)
class SequenceScore:
    """All metrics of one sequence.

    Attributes:
        name: of the sequence.
        metrics: value or None where it is not determined; names and units as in ``docs/protocols.md``.
        degenerate: part (``depth``, ``points``, ``poses``) -> why its metrics are None.
        warnings: suspicious things: units, NaN counts, frames left out.
        seconds: time spent on scoring.
        confidence_sample: ``confidence`` and ``error`` of some pixels, to pool sequences, or None.
    """

    name: str
    metrics: dict[str, float | None]
    degenerate: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    confidence_sample: dict[str, list[float]] | None = None

    def to_json(self) -> dict[str, Any]:
        """One row of a result file."""
        return {
            "name": self.name,
            **self.metrics,
            "degenerate": self.degenerate,
            "warnings": list(self.warnings),
            "scoring_seconds": round(self.seconds, 3),
        }


def score(predicted: Reconstruction | Predicted, sequence: Sequence, protocol: Protocol) -> SequenceScore:
    """Score predictions for one sequence.

    Frames without a prediction count as wrong. Maps are resized to the reference (bicubic where all is valid).

    Args:
        predicted: depth, disparity, points or cameras.
        sequence: ground truth.
        protocol: masks, caps, alignment and averaging.
    Raises:
        ValueError: predictions cannot be brought into the space in which the protocol aligns them.
    """
    started = time.perf_counter()
    if isinstance(predicted, Reconstruction):
        predicted = from_reconstruction(predicted)
    metrics: dict[str, float | None] = {}
    degenerate: dict[str, str] = {}
    warnings = list(predicted.warnings)
    row = {int(frame): i for i, frame in enumerate(predicted.frames)}
    outside = [frame for frame in row if not 0 <= frame < sequence.num_frames]
    if outside:
        raise ValueError(
            f"expected frames below {sequence.num_frames} as in {sequence.name}, got predictions for frame {outside[0]}"
        )
    if len(row) < sequence.num_frames:
        warnings.append(
            f"{sequence.num_frames - len(row)} of {sequence.num_frames} frames have no prediction"
        )
    if protocol.depth is not None and sequence.depth is not None and predicted.maps is not None:
        try:
            metrics |= score_depth(predicted, row, sequence, protocol, warnings)
        except DegenerateInput as reason:
            degenerate["depth"] = str(reason)
    elif protocol.depth is not None and sequence.depth is not None:
        metrics["coverage"] = 0.0
        degenerate["depth"] = "nothing predicted"
    if protocol.points is not None and sequence.depth is not None and sequence.intrinsics is not None:
        has_points = predicted.points is not None or (
            predicted.maps is not None
            and predicted.intrinsics is not None
            and predicted.scale_kind != "affine"
        )
        if has_points:
            try:
                metrics |= score_points(predicted, row, sequence, protocol.points)
            except DegenerateInput as reason:
                degenerate["points"] = str(reason)
    if protocol.poses is not None and sequence.c2w is not None and predicted.c2w is not None:
        metrics |= score_poses(predicted, row, sequence, protocol, degenerate, warnings)
    elif protocol.poses is not None and sequence.c2w is not None:
        metrics["pose_coverage"] = 0.0
        degenerate["poses"] = "nothing predicted"
    if sequence.intrinsics is not None and predicted.intrinsics is not None:
        found = intrinsics_scores(
            torch.from_numpy(spread(predicted.intrinsics, row, sequence.num_frames)),
            predicted.size,
            torch.from_numpy(sequence.intrinsics),
            sequence.size,
        )
        names = ("fx_rel", "fy_rel", "fy_fx_rel", "cx_rel", "cy_rel")
        metrics |= {name: getattr(found, name) for name in names}
        metrics["intrinsics_coverage"] = found.coverage
    sample = None
    if protocol.depth is not None and sequence.depth is not None and predicted.maps is not None:
        further, sample = score_scaled(predicted, row, sequence, protocol.depth, degenerate)
        metrics |= further
    return SequenceScore(
        name=sequence.name,
        metrics=metrics,
        degenerate=degenerate,
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
        confidence_sample=sample,
    )
