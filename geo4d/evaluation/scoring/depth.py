"""Depth metrics of a sequence under the alignment of its protocol."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from geo4d.datasets.base import Sequence
from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics.consistency import (
    depth_change_sums,
    static_correspondences,
    track_depth_change_sums,
)
from geo4d.evaluation.metrics.depth import depth_scores, depth_sums
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import DepthProtocol, Protocol, align_depth, fit_depth, fit_space, valid_depth
from geo4d.evaluation.scoring.frames import frame_values
from geo4d.types import LazyFrames


def aligned_depth(
    predicted: Predicted, sequence: Sequence, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Aligned prediction and reference (NaN where not valid), [T, H, W], as the metrics see them; for error maps.

    Raises:
        DegenerateInput: the alignment is not determined.
    """
    assert protocol.depth is not None
    assert sequence.depth is not None
    row = {int(frame): i for i, frame in enumerate(predicted.frames)}
    fits = _fit_sequence(predicted, row, sequence, protocol.depth)[0]
    aligned, references = [], []
    for frame in range(sequence.num_frames):
        reference = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))
        values = frame_values(predicted, row, frame, sequence.size)
        scale, shift = fits[frame]
        aligned.append(
            align_depth(values, scale, shift, protocol.depth, quantity=predicted.quantity).float().numpy()
        )
        references.append(torch.where(valid_depth(reference, protocol.depth), reference, torch.nan).numpy())
    return np.stack(aligned), np.stack(references)


def score_depth(
    predicted: Predicted, row: dict[int, int], sequence: Sequence, protocol: Protocol, warnings: list[str]
) -> dict[str, float | None]:
    """Depth metrics of one sequence after the protocol's alignment; what is odd is appended to ``warnings``.

    Args:
        row: frame of the sequence -> row of the prediction.
    """
    settings = protocol.depth
    assert settings is not None
    assert sequence.depth is not None
    fits, ratio, num_nan = _fit_sequence(predicted, row, sequence, settings)
    if settings.alignment.startswith("scale_shift") and any(scale == 0 for scale, _ in fits):
        warnings.append("the prediction is constant (in the sequence or in a frame)")
    if num_nan:
        warnings.append(f"{num_nan} reference-valid pixels have no finite prediction; they count as wrong")
    _check_units(ratio, predicted, warnings)
    sums, change = [], torch.zeros(3, dtype=torch.float64)
    previous: tuple[Tensor, Tensor] | None = None
    for frame in range(sequence.num_frames):
        reference = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))
        values = frame_values(predicted, row, frame, sequence.size)
        aligned = align_depth(values, *fits[frame], settings, quantity=predicted.quantity)
        sums.append(depth_sums(aligned, reference, valid_depth(reference, settings), floor=settings.floor))
        if protocol.consistency and previous is not None:
            change += _depth_change(sequence, frame, previous, (aligned, reference), settings)
        previous = aligned, reference
    scores = depth_scores(torch.stack(sums), average=settings.average)
    result: dict[str, float | None] = {
        name: value for name, value in asdict(scores).items() if name != "num_empty_frames"
    }
    if scores.num_empty_frames:
        warnings.append(f"{scores.num_empty_frames} frames have no valid reference pixel and are left out")
    if settings.scope == "sequence":
        result |= {"depth_scale": fits[0][0], "depth_shift": fits[0][1]}
    if change[0] > 0:
        result["depth_change"] = float(change[2] / change[1]) if change[1] > 0 else None
        result["depth_change_coverage"] = float(change[1] / change[0])
    return result


def region_scores(
    predicted: Predicted,
    sequence: Sequence,
    settings: DepthProtocol,
    inside: Callable[[int], np.ndarray | bool],
    *,
    only_inside: bool = False,
) -> dict[str, float | None]:
    """Depth scores over all pixels and over two parts of them, all with the one fit over all.

    Args:
        inside: frame -> [H, W] True on the first part, at the size of the reference.
        only_inside: the first part is all there is.
    Returns:
        ``abs_rel``, ``delta_125``, ``coverage``; the same ``_with_evidence`` (inside) and ``_without_evidence``; None
        where no pixel is of the kind.
    Raises:
        DegenerateInput: no valid reference pixel.
    """
    assert sequence.depth is not None
    row = {int(frame): i for i, frame in enumerate(predicted.frames)}
    depth = sequence.depth

    def masked(t: int) -> np.ndarray:
        return np.where(inside(t), np.asarray(depth[t], np.float32), np.nan)

    if only_inside:
        part = LazyFrames((sequence.num_frames, *sequence.size), np.dtype(np.float32), masked)
        sequence = replace(sequence, depth=part)
    fits = _fit_sequence(predicted, row, sequence, settings)[0]
    sums: dict[str, list[Tensor]] = {"": [], "_with_evidence": [], "_without_evidence": []}
    for frame in range(sequence.num_frames):
        assert sequence.depth is not None
        reference = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))
        values = frame_values(predicted, row, frame, sequence.size)
        aligned = align_depth(values, *fits[frame], settings, quantity=predicted.quantity)
        valid = valid_depth(reference, settings)
        first = torch.from_numpy(np.broadcast_to(inside(frame), sequence.size).copy())
        for kind, mask in (
            ("", valid),
            ("_with_evidence", valid & first),
            ("_without_evidence", valid & ~first),
        ):
            sums[kind].append(depth_sums(aligned, reference, mask, floor=settings.floor))
    result: dict[str, float | None] = {}
    for kind, found in sums.items():
        try:
            scores = depth_scores(torch.stack(found), average=settings.average)
            part_scores: dict[str, float | None] = {
                "abs_rel": scores.abs_rel,
                "delta_125": scores.delta_125,
                "coverage": scores.coverage,
            }
        except DegenerateInput:
            if kind == "":
                raise
            part_scores = dict.fromkeys(("abs_rel", "delta_125", "coverage"))
        result |= {metric + kind: value for metric, value in part_scores.items()}
    return result


def _fit_sequence(
    predicted: Predicted, row: dict[int, int], sequence: Sequence, settings: DepthProtocol
) -> tuple[list[tuple[float, float]], float | None, int]:
    """Scale and shift for every frame, median ratio reference / prediction, pixels without a finite prediction."""
    assert sequence.depth is not None
    if settings.space == "depth" and predicted.quantity == "disparity" and predicted.scale_kind == "affine":
        raise ValueError(
            "expected a protocol that aligns in disparity (or native) for disparity of unknown shift, got one that "
            "aligns in depth"
        )
    values, references = [], []
    num_valid = num_nan = 0
    for frame in range(sequence.num_frames):
        reference = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))
        valid = valid_depth(reference, settings)
        num_valid += int(valid.sum())
        p, r = frame_values(predicted, row, frame, sequence.size)[valid], reference[valid]
        seen = torch.isfinite(p)
        num_nan += int((~seen).sum())
        values.append(p[seen])
        references.append(r[seen])
    if num_valid < settings.min_pixels:
        raise DegenerateInput(
            "no valid reference pixel" if num_valid == 0 else f"only {num_valid} valid reference pixels"
        )
    weighted = settings.weighted and (predicted.points is not None or predicted.intrinsics is not None)
    everything, truth = torch.cat(values), torch.cat(references)
    if everything.numel() == 0:
        return [(1.0, 0.0)] * sequence.num_frames, None, num_nan

    def fit(p: Tensor, r: Tensor) -> tuple[float, float]:
        if p.numel() == 0:  # nothing to fit on: whatever is valid here is not covered
            return 1.0, 0.0
        try:
            return fit_depth(p, r, settings, quantity=predicted.quantity, weighted=weighted)
        except DegenerateInput:
            # A constant prediction is wrong, not degenerate: it gets the best constant.
            in_depth = fit_space(settings, predicted.quantity) == "depth"
            return 0.0, float(r.median() if in_depth else 1 / r.median())

    ratio = float(truth.median() / everything.median()) if float(everything.median()) != 0 else None
    if settings.scope == "sequence":
        return [fit(everything, truth)] * sequence.num_frames, ratio, num_nan
    return [fit(p, r) for p, r in zip(values, references, strict=True)], ratio, num_nan


def _check_units(ratio: float | None, predicted: Predicted, warnings: list[str]) -> None:
    if ratio is None or predicted.quantity != "depth" or predicted.scale_kind == "affine":
        return
    factor = max(ratio, 1 / ratio) if ratio > 0 else 0.0
    if 500 <= factor <= 2000:
        warnings.append(
            f"suspicious units: the reference is {ratio:.4g} times the prediction; millimetres against metres?"
        )
    elif predicted.scale_kind == "metric" and factor > 100:
        warnings.append(
            f"suspicious units: metric prediction, but the reference is {ratio:.4g} times as large"
        )


def _depth_change(
    sequence: Sequence,
    frame: int,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    settings: DepthProtocol,
) -> Tensor:
    """Over the sequence's own tracks if it has some, else over static pixels that depth and cameras follow."""
    pair = slice(frame - 1, frame + 1)
    if sequence.tracks is not None:
        depth = torch.from_numpy(np.asarray(sequence.tracks.depth[pair], np.float32))
        return track_depth_change_sums(
            torch.stack([first[0], second[0]]).float(),
            torch.where(valid_depth(depth, settings), depth, torch.nan),
            torch.from_numpy(np.asarray(sequence.tracks.pixels[pair], np.float32)),
            torch.from_numpy(np.asarray(sequence.tracks.visible[pair], bool)),
        )
    if (
        sequence.c2w is None
        or sequence.intrinsics is None
        or not np.isfinite(sequence.c2w[frame - 1 : frame + 1]).all()
    ):
        return torch.zeros(3, dtype=torch.float64)
    reference = torch.stack([first[1], second[1]])
    reference = torch.where(valid_depth(reference, settings), reference, torch.nan)
    static = None
    if sequence.dynamic is not None:
        static = ~torch.from_numpy(np.asarray(sequence.dynamic[frame - 1], bool))
    source, target = static_correspondences(
        reference,
        torch.from_numpy(np.asarray(sequence.intrinsics[frame - 1 : frame + 1], np.float64)),
        torch.from_numpy(np.asarray(sequence.c2w[frame - 1 : frame + 1], np.float64)),
        static,
    )
    if source.shape[0] == 0:
        return torch.zeros(3, dtype=torch.float64)
    return depth_change_sums(torch.stack([first[0], second[0]]).float(), reference, source, target)
