"""What depends on one factor per scene alone, whatever the protocol aligns: steadiness, scale, confidence."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.datasets.base import Sequence
from geo4d.evaluation.confidence import confidence_scores
from geo4d.evaluation.metrics.consistency import (
    log_error_change,
    static_correspondences,
    track_pixels,
    translation_parallax,
)
from geo4d.evaluation.metrics.poses import path_degeneracy
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import DepthProtocol, valid_depth
from geo4d.evaluation.scoring.frames import frame_depth, spread
from geo4d.export import ExportConfig
from geo4d.export.kept import confidence_threshold, kept_mask
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import similarity_parts

MIN_PARALLAX = 3.0
"""Pixels that the camera's translation must move the picture by before the scale of its path says anything."""
MOVING = 0.5
"""Probability from which a result calls a pixel moving."""
NUM_SAMPLES = 200_000
"""Pixels of a sequence, about, that the scene's factor and the confidence are looked at on."""
NUM_KEPT_SAMPLES = 2_000
"""Of those, how many a result file's pool gets from each sequence."""


def score_scaled(
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
        depth = frame_depth(predicted, row, frame, sequence.size)
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
    path = torch.from_numpy(spread(np.asarray(predicted.c2w, np.float64), row, sequence.num_frames))
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
