"""One sequence against its ground truth under one protocol: functions of arrays, no models, no folders."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.datasets.base import Sequence
from geo4d.evaluation.confidence import confidence_scores
from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics import (
    depth_change_sums,
    depth_scores,
    depth_sums,
    intrinsics_scores,
    log_error_change,
    path_degeneracy,
    point_scores,
    point_sums,
    pose_scores,
    static_correspondences,
    track_depth_change_sums,
    track_pixels,
    translation_parallax,
)
from geo4d.evaluation.predicted import Predicted, from_reconstruction
from geo4d.evaluation.protocols import (
    DepthProtocol,
    PointProtocol,
    Protocol,
    align_depth,
    fit_depth,
    fit_points,
    fit_space,
    valid_depth,
)
from geo4d.export import ExportConfig
from geo4d.export.kept import confidence_threshold, kept_mask
from geo4d.geometry.cameras import resize_intrinsics, unproject
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import similarity_parts
from geo4d.types import LazyFrames, Reconstruction

MIN_PARALLAX = 3.0
"""Pixels that the camera's translation must move the picture by before the scale of its path says anything."""
MOVING = 0.5
"""Probability from which a result calls a pixel moving."""
NUM_SAMPLES = 200_000
"""Pixels of a sequence, about, that the scene's factor and the confidence are looked at on."""
NUM_KEPT_SAMPLES = 2_000
"""Of those, how many a result file's pool gets from each sequence."""


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
            metrics |= _score_depth(predicted, row, sequence, protocol, warnings)
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
                metrics |= _score_points(predicted, row, sequence, protocol.points)
            except DegenerateInput as reason:
                degenerate["points"] = str(reason)
    if protocol.poses is not None and sequence.c2w is not None and predicted.c2w is not None:
        metrics |= _score_poses(predicted, row, sequence, protocol, degenerate, warnings)
    elif protocol.poses is not None and sequence.c2w is not None:
        metrics["pose_coverage"] = 0.0
        degenerate["poses"] = "nothing predicted"
    if sequence.intrinsics is not None and predicted.intrinsics is not None:
        found = intrinsics_scores(
            torch.from_numpy(_spread(predicted.intrinsics, row, sequence.num_frames)),
            predicted.size,
            torch.from_numpy(sequence.intrinsics),
            sequence.size,
        )
        names = ("fx_rel", "fy_rel", "fy_fx_rel", "cx_rel", "cy_rel")
        metrics |= {name: getattr(found, name) for name in names}
        metrics["intrinsics_coverage"] = found.coverage
    sample = None
    if protocol.depth is not None and sequence.depth is not None and predicted.maps is not None:
        further, sample = _score_scaled(predicted, row, sequence, protocol.depth, degenerate)
        metrics |= further
    return SequenceScore(
        name=sequence.name,
        metrics=metrics,
        degenerate=degenerate,
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
        confidence_sample=sample,
    )


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
        values = _frame_values(predicted, row, frame, sequence.size)
        scale, shift = fits[frame]
        aligned.append(
            align_depth(values, scale, shift, protocol.depth, quantity=predicted.quantity).float().numpy()
        )
        references.append(torch.where(valid_depth(reference, protocol.depth), reference, torch.nan).numpy())
    return np.stack(aligned), np.stack(references)


def _score_depth(
    predicted: Predicted, row: dict[int, int], sequence: Sequence, protocol: Protocol, warnings: list[str]
) -> dict[str, float | None]:
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
        values = _frame_values(predicted, row, frame, sequence.size)
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
        values = _frame_values(predicted, row, frame, sequence.size)
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
        p, r = _frame_values(predicted, row, frame, sequence.size)[valid], reference[valid]
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


def _frame_values(predicted: Predicted, row: dict[int, int], frame: int, size: tuple[int, int]) -> Tensor:
    """One predicted map at the size of the reference, NaN where missing."""
    if frame not in row or predicted.maps is None:
        return torch.full(size, torch.nan)
    values = torch.from_numpy(np.array(predicted.maps[row[frame]], np.float32))
    known = torch.isfinite(values)
    if predicted.scale_kind != "affine":
        known = known & (values > 0 if predicted.quantity == "depth" else values >= 0)
    if not bool(known.any()):
        return torch.full(size, torch.nan)
    resized = resize_map(torch.where(known, values, torch.nan), size)
    if predicted.scale_kind == "affine":
        return resized
    # Bicubic weights overshoot at steps; what they push below zero is still a prediction.
    return torch.where(resized <= 0, values[known].min(), resized)


def resize_map(values: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "H W"]:
    """Bicubic to ``size`` (with anti-aliasing downwards); near missing values the mean of what is there, else NaN."""
    if tuple(values.shape) == size:
        return values
    known = torch.isfinite(values)

    def resize(array: Tensor, mode: str) -> Tensor:
        return F.interpolate(array[None, None], size=size, mode=mode, align_corners=False, antialias=True)[
            0, 0
        ]

    if bool(known.all()):
        return resize(values, "bicubic")
    share = resize(known.float(), "bilinear")
    filled = torch.where(known, values, 0.0)
    smooth = resize(filled, "bilinear") / share.clamp(min=1e-6)
    whole = (share > 1 - 1e-6) & (resize(known.float(), "bicubic") > 1 - 1e-4)
    sharp = resize(torch.where(known, values, values[known].mean() if bool(known.any()) else 0.0), "bicubic")
    return torch.where(share > 0.5, torch.where(whole, sharp, smooth), torch.nan)


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


def _score_scaled(
    predicted: Predicted,
    row: dict[int, int],
    sequence: Sequence,
    settings: DepthProtocol,
    degenerate: dict[str, str],
) -> tuple[dict[str, float | None], dict[str, list[float]] | None]:
    """What depends on one factor per scene alone, whatever the protocol aligns: steadiness, scale, confidence.

    Returns:
        further metrics, and a sample of (confidence, error).
    """
    assert sequence.depth is not None
    if predicted.scale_kind == "affine":
        return {}, None  # no factor makes depth of it
    height, width = sequence.size
    step = max(1, round((height * width * sequence.num_frames / NUM_SAMPLES) ** 0.5))
    grid = (slice(step // 2, None, step), slice(step // 2, None, step))
    ratios, confidences, kept, moving, posed, scenes = [], [], [], [], [], []
    threshold = _export_threshold(predicted)
    changes: dict[str, list[Tensor]] = {"static": [], "moving": []}
    previous: tuple[Tensor, Tensor] | None = None
    for frame in range(sequence.num_frames):
        reference = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))
        reference = torch.where(valid_depth(reference, settings), reference, torch.nan)
        depth = _frame_depth(predicted, row, frame, sequence.size)
        if previous is not None:
            pair = torch.stack([previous[0], depth]), torch.stack([previous[1], reference])
            for kind, followed in _followed(sequence, frame, pair[1]).items():
                changes[kind].append(log_error_change(*pair, *followed))
        previous = depth, reference
        ratio = (depth / reference)[grid]
        seen = torch.isfinite(ratio) & (ratio > 0)
        ratios.append(ratio[seen])
        posed.append(
            torch.full_like(ratio[seen], _has_pose(predicted, sequence, row, frame), dtype=torch.bool)
        )
        scene = 0 if predicted.scene is None or frame not in row else int(predicted.scene[row[frame]])
        scenes.append(torch.full_like(ratio[seen], scene, dtype=torch.long))
        if predicted.confidence is not None and frame in row:
            keep, certain, moves = _export_view(predicted, row[frame], sequence.size, threshold)
            confidences.append(certain[grid][seen])
            kept.append(keep[grid][seen])
            moving.append(moves[grid][seen])
        elif predicted.confidence is not None:
            confidences.append(ratio.new_zeros(0))
    result: dict[str, float | None] = {
        f"flicker_{kind}": float(torch.cat(found).abs().median())
        if found and torch.cat(found).numel()
        else None
        for kind, found in changes.items()
    }
    ratio = torch.cat(ratios)
    result |= _score_scale(predicted, sequence, row, ratio[torch.cat(posed)], degenerate)
    sample = None
    if predicted.confidence is not None and ratio.numel():
        confidence, error = torch.cat(confidences), _relative_error(ratio, torch.cat(scenes))
        result |= confidence_scores(confidence, error, torch.cat(kept), torch.cat(moving))
        pick = torch.linspace(0, len(error) - 1, min(len(error), NUM_KEPT_SAMPLES)).long()
        sample = {
            "confidence": [round(value, 4) for value in confidence[pick].tolist()],
            "error": [round(value, 5) for value in error[pick].tolist()],
        }
    return result, sample


def _relative_error(ratio: Float[Tensor, " n"], scene: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """|p - r| / r after one factor for each scene."""
    error = torch.zeros_like(ratio)
    for number in scene.unique():
        own = scene == number
        error[own] = (ratio[own] / ratio[own].median() - 1).abs()
    return error


def _frame_depth(predicted: Predicted, row: dict[int, int], frame: int, size: tuple[int, int]) -> Tensor:
    """Depth at the size of the reference, no alignment; NaN where there is no finite, positive one."""
    values = _frame_values(predicted, row, frame, size)
    values = torch.where(values > 0, values, torch.nan)
    return 1 / values if predicted.quantity == "disparity" else values


def _has_pose(predicted: Predicted, sequence: Sequence, row: dict[int, int], frame: int) -> bool:
    if predicted.c2w is None or sequence.c2w is None or frame not in row:
        return False
    return bool(np.isfinite(predicted.c2w[row[frame]]).all() and np.isfinite(sequence.c2w[frame]).all())


def _export_threshold(predicted: Predicted) -> float:
    """The confidence below which default exports leave points out; 0 where there is no confidence."""
    if predicted.confidence is None or predicted.maps is None:
        return 0.0
    return confidence_threshold(
        predicted.maps, predicted.confidence, predicted.dynamic, edge_step=ExportConfig().edge_step
    )


def _export_view(
    predicted: Predicted, index: int, size: tuple[int, int], min_confidence: float
) -> tuple[Bool[Tensor, "H W"], Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """What default point exports keep, confidence, and what the result calls moving, at the size of the reference."""
    assert predicted.maps is not None
    assert predicted.confidence is not None
    depth = np.array(predicted.maps[index], np.float32)
    certain = np.array(predicted.confidence[index], np.float32)
    edge_step = ExportConfig().edge_step
    keep = torch.from_numpy(kept_mask(depth, certain, min_confidence=min_confidence, edge_step=edge_step))
    confidence = torch.from_numpy(certain)
    moves = torch.zeros_like(confidence)
    if predicted.dynamic is not None:
        moves = torch.from_numpy(np.array(predicted.dynamic[index], np.float32))
    keep, confidence, moves = F.interpolate(
        torch.stack([keep.float(), confidence, moves])[None], size, mode="nearest-exact"
    )[0]
    return keep > 0.5, confidence, moves > MOVING


def _followed(
    sequence: Sequence, frame: int, reference: Float[Tensor, "2 H W"]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Pixels of static and of moving surface in ``frame - 1`` and ``frame``."""
    pair = slice(frame - 1, frame + 1)
    moves = None
    if sequence.dynamic is not None:
        moves = torch.from_numpy(np.asarray(sequence.dynamic[pair], bool))
    if sequence.tracks is not None:
        source, target = track_pixels(
            torch.from_numpy(np.asarray(sequence.tracks.pixels[pair], np.float32)),
            torch.from_numpy(np.asarray(sequence.tracks.visible[pair], bool)),
            sequence.size,
        )
        if moves is None:
            return {"static": (source, target)}
        first, second = moves[0][tuple(source.T)], moves[1][tuple(target.T)]
        both, none = first & second, ~(first | second)
        return {"static": (source[none], target[none]), "moving": (source[both], target[both])}
    if sequence.c2w is None or sequence.intrinsics is None or not np.isfinite(sequence.c2w[pair]).all():
        return {}
    static = None if moves is None else ~moves[0]
    followed = static_correspondences(
        reference,
        torch.from_numpy(np.asarray(sequence.intrinsics[pair], np.float64)),
        torch.from_numpy(np.asarray(sequence.c2w[pair], np.float64)),
        static,
    )
    return {"static": followed}


def _score_scale(
    predicted: Predicted,
    sequence: Sequence,
    row: dict[int, int],
    ratio: Float[Tensor, " n"],
    degenerate: dict[str, str],
) -> dict[str, float | None]:
    """Is the depth in the unit of the cameras? The factor that makes it true, over the factor that makes the path true.

    Args:
        ratio: predicted over reference depth, of frames with poses.
    """
    if predicted.c2w is None or sequence.c2w is None or sequence.intrinsics is None:
        return {}
    parallax = sequence_parallax(sequence)
    result: dict[str, float | None] = {"parallax_px": parallax, "depth_over_cameras": None}
    reference = torch.from_numpy(np.asarray(sequence.c2w, np.float64))[:, :3, 3]
    path = torch.from_numpy(_spread(np.asarray(predicted.c2w, np.float64), row, sequence.num_frames))
    path = path[:, :3, 3]
    posed = torch.isfinite(path).all(-1) & torch.isfinite(reference).all(-1)
    if parallax < MIN_PARALLAX:
        degenerate["scale"] = f"not determined: {parallax:.1f} px of parallax"
    elif int(posed.sum()) < 2 or ratio.numel() == 0:
        degenerate["scale"] = "not determined: no depth or no path"
    elif path_degeneracy(path[posed]) == "no motion":
        degenerate["scale"] = "not determined: the predicted camera does not move"
    else:
        # A straight path leaves the rotation about itself open, but not its length.
        factor = float(similarity_parts(fit_similarity(path[posed], reference[posed]))[0])
        result["depth_over_cameras"] = float((1 / ratio.double()).median()) / factor
    return result


def sequence_parallax(sequence: Sequence) -> float:
    """Pixels that the camera's translation moves the picture by, seen from the first, middle or last posed frame.

    See ``translation_parallax``; 0 where reference depth, cameras or intrinsics are missing.
    """
    if sequence.c2w is None or sequence.intrinsics is None or sequence.depth is None:
        return 0.0
    posed = np.flatnonzero(np.isfinite(sequence.c2w).all(axis=(1, 2)))
    if posed.size < 2:
        return 0.0
    intrinsics = torch.from_numpy(np.asarray(sequence.intrinsics[posed], np.float64))
    c2w = torch.from_numpy(np.asarray(sequence.c2w[posed], np.float64))
    return max(
        translation_parallax(
            torch.from_numpy(np.asarray(sequence.depth[posed[at]], np.float32)), intrinsics, c2w, at
        )
        for at in (0, posed.size // 2, posed.size - 1)
    )


def _score_points(
    predicted: Predicted, row: dict[int, int], sequence: Sequence, settings: PointProtocol
) -> dict[str, float | None]:
    assert sequence.depth is not None
    assert sequence.intrinsics is not None

    def frame_points(frame: int) -> tuple[Tensor, Tensor, Tensor]:
        depth = torch.from_numpy(np.asarray(sequence.depth[frame], np.float32))  # type: ignore[index]
        intrinsics = torch.from_numpy(np.asarray(sequence.intrinsics[frame], np.float32))  # type: ignore[index]
        valid = torch.isfinite(depth) & (depth > 0)
        reference = unproject(torch.where(valid, depth, 1.0), intrinsics)
        return _frame_points(predicted, row, frame, sequence.size), reference, valid

    values, references = [], []
    for frame in range(sequence.num_frames):
        points, reference, valid = frame_points(frame)
        seen = valid & torch.isfinite(points).all(-1)
        values.append(points[seen])
        references.append(reference[seen])
    if not bool(torch.stack([points.any() for points in values]).any()):
        scale = 1.0  # no usable point: nothing is covered, or all points are 0 and wrong
    else:
        scale = fit_points(torch.cat(values), torch.cat(references), settings)
    sums = []
    for frame in range(sequence.num_frames):
        points, reference, valid = frame_points(frame)
        sums.append(point_sums(scale * points, reference, valid, floor=settings.floor))
    scores = point_scores(torch.stack(sums), average=settings.average)
    return {
        "point_rel": scores.point_rel,
        "point_delta": scores.point_delta,
        "point_coverage": scores.coverage,
        "point_scale": scale,
    }


def _frame_points(predicted: Predicted, row: dict[int, int], frame: int, size: tuple[int, int]) -> Tensor:
    if frame not in row:
        return torch.full((*size, 3), torch.nan)
    if predicted.points is not None:
        points = torch.from_numpy(np.array(predicted.points[row[frame]], np.float32))
        return torch.stack([resize_map(channel, size) for channel in points.unbind(-1)], -1)
    assert predicted.intrinsics is not None
    intrinsics = torch.from_numpy(np.asarray(predicted.intrinsics[row[frame]], np.float32))
    depth = _frame_values(predicted, row, frame, size)
    if predicted.quantity == "disparity":
        depth = torch.where(depth > 0, 1 / depth, torch.nan)
    return unproject(depth, resize_intrinsics(intrinsics, predicted.size, size))


def _score_poses(
    predicted: Predicted,
    row: dict[int, int],
    sequence: Sequence,
    protocol: Protocol,
    degenerate: dict[str, str],
    warnings: list[str],
) -> dict[str, float | None]:
    assert protocol.poses is not None
    assert sequence.c2w is not None
    assert predicted.c2w is not None
    known = np.isfinite(sequence.c2w).all(axis=(1, 2))
    if not known.any():
        degenerate["poses"] = "no reference pose"
        return {}
    if not known.all():
        warnings.append(
            f"{int((~known).sum())} frames have no reference pose and are left out of pose metrics"
        )
    scores = pose_scores(
        torch.from_numpy(_spread(np.asarray(predicted.c2w, np.float64), row, sequence.num_frames)[known]),
        torch.from_numpy(np.asarray(sequence.c2w, np.float64)[known]),
        alignment=protocol.poses.alignment,
        delta=protocol.poses.delta,
    )
    if scores.degenerate is not None:
        degenerate["poses"] = scores.degenerate
    if scores.static_prediction:
        warnings.append("the predicted camera does not move")
    return {
        "ate": scores.ate,
        "ate_mean": scores.ate_mean,
        "ate_max": scores.ate_max,
        "rpe_trans": scores.rpe_trans,
        "rpe_rot_deg": scores.rpe_rot_deg,
        "rot_deg": scores.rot_deg,
        **{f"auc_{limit}": value for limit, value in scores.auc.items()},
        "pose_scale": scores.scale,
        "pose_coverage": scores.coverage,
    }


def _spread(values: np.ndarray, row: dict[int, int], num_frames: int) -> np.ndarray:
    """Per-frame arrays laid on all frames of the sequence, NaN where there is no prediction."""
    result = np.full((num_frames, *values.shape[1:]), np.nan)
    for frame, index in row.items():
        result[frame] = values[index]
    return result
