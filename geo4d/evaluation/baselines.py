"""What must be beaten: rows of no or little cleverness beside the whole, on the same pixels, with one factor a sequence.

``constant`` one depth everywhere. ``ramp`` disparity linear over the rows. ``control`` constant depth plus the evidence,
spread by the anchor's rule and fused as ever: no network. ``pictures`` the model without evidence. ``evidence`` alone, on
its own pixels. ``pictures_affine`` as ``pictures``, with a scale and a shift of disparity per frame from the truth.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geo4d.datasets.base import Sequence
from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import DepthProtocol, valid_depth
from geo4d.evaluation.scoring.depth import region_scores
from geo4d.types import LazyFrames

BASELINES = ("constant", "ramp", "control", "pictures", "evidence", "pictures_affine")
REGIONS = ("", "_with_evidence", "_without_evidence")
METRICS = ("abs_rel", "delta_125", "coverage")


def constant(sequence: Sequence) -> Predicted:
    """Depth 1 in every pixel."""
    return _same_map(sequence, np.ones(sequence.size, np.float32), "depth")


def ramp(sequence: Sequence) -> Predicted:
    """Disparity that grows linearly from row to row, of unknown scale and shift."""
    height, width = sequence.size
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    return _same_map(sequence, np.broadcast_to(rows, (height, width)), "disparity")


def _same_map(sequence: Sequence, values: np.ndarray, quantity: Any) -> Predicted:
    return Predicted(
        frames=np.arange(sequence.num_frames),
        size=sequence.size,
        maps=np.broadcast_to(values, (sequence.num_frames, *sequence.size)),
        quantity=quantity,
        scale_kind="scale" if quantity == "depth" else "affine",
    )


def evidence(sequence: Sequence, depth: Mapping[int, Tensor]) -> Predicted:
    """Depth from evidence at the size of the reference; every pixel takes the nearest value, so that edges stay.

    Args:
        depth: frame -> [h, w], NaN where there is none; frames may be missing.
    """
    nothing = np.full(sequence.size, np.nan, np.float32)

    def compute(t: int) -> np.ndarray:
        if t not in depth:
            return nothing
        found = torch.nn.functional.interpolate(depth[t][None, None], sequence.size, mode="nearest-exact")
        return found[0, 0].numpy()

    shape = (sequence.num_frames, *sequence.size)
    return Predicted(
        frames=np.arange(sequence.num_frames),
        size=sequence.size,
        maps=LazyFrames(shape, np.dtype(np.float32), compute),
    )


def baseline_rows(
    sequence: Sequence, protocol: DepthProtocol, predicted: Mapping[str, Predicted | None]
) -> dict[str, dict[str, float | None]]:
    """Scores of every row over all pixels, over those with and those without evidence.

    Args:
        protocol: its limits of valid depth are used; the alignment is one factor, the median of reference over
            prediction, as for confidence, flicker and scale.
        predicted: ``whole``, ``control``, ``pictures`` and ``evidence``; None where there is none.
    Returns:
        name -> ``abs_rel``, ``delta_125``, ``coverage``, and the same ``_with_evidence`` and ``_without_evidence``; None
        where nothing was predicted or no pixel is of the kind. ``evidence`` counts its own pixels only.
    """
    one_factor = DepthProtocol(
        min_depth=protocol.min_depth, max_depth=protocol.max_depth, alignment="median_ratio"
    )
    # A fitted line of disparity runs through 0 somewhere: what lies beyond the farthest reference is cut there.
    farthest = _farthest(sequence, one_factor)
    affine = replace(one_factor, alignment="scale_shift_l1", space="disparity", clip_max=farthest)
    per_frame = replace(affine, scope="frame")
    found = predicted.get("evidence")
    inside = evidence_mask(found)
    rows: dict[str, tuple[Predicted | None, DepthProtocol]] = {
        "whole": (predicted.get("whole"), one_factor),
        "constant": (constant(sequence), one_factor),
        "ramp": (ramp(sequence), affine),
        "control": (predicted.get("control"), one_factor),
        "pictures": (predicted.get("pictures"), one_factor),
        "evidence": (found, one_factor),
        "pictures_affine": (predicted.get("pictures"), per_frame),
    }
    result = {}
    for name, (maps, settings) in rows.items():
        scores: dict[str, float | None] = {metric + region: None for region in REGIONS for metric in METRICS}
        if maps is not None and maps.maps is not None:
            with contextlib.suppress(DegenerateInput):  # no reference pixel of the kind: not determined
                scores = region_scores(maps, sequence, settings, inside, only_inside=name == "evidence")
        result[name] = scores
    return result


def _farthest(sequence: Sequence, settings: DepthProtocol) -> float | None:
    assert sequence.depth is not None
    found = []
    for frame in range(sequence.num_frames):
        reference = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))
        valid = reference[valid_depth(reference, settings)]
        if valid.numel():
            found.append(float(valid.max()))
    return max(found, default=None)


def evidence_mask(found: Predicted | None) -> Callable[[int], np.ndarray | bool]:
    """Frame -> True where ``found`` is finite, at the size of the reference; one False where there is no evidence at all.

    Args:
        found: one map for every frame of the sequence, as from ``evidence``.
    """
    if found is None or found.maps is None:
        return lambda t: False
    maps = found.maps
    return lambda t: np.isfinite(np.asarray(maps[t]))
