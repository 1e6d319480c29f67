"""Point metrics of a sequence."""

import numpy as np
import torch
from torch import Tensor

from geo4d.datasets.base import Sequence
from geo4d.evaluation.metrics.points import point_scores, point_sums
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import PointProtocol, fit_points
from geo4d.evaluation.scoring.frames import frame_values, resize_map
from geo4d.geometry.cameras import resize_intrinsics, unproject


def score_points(
    predicted: Predicted, row: dict[int, int], sequence: Sequence, settings: PointProtocol
) -> dict[str, float | None]:
    """Metrics of camera-frame point maps after the protocol's alignment.

    Args:
        row: frame of the sequence -> row of the prediction.
    """
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
    depth = frame_values(predicted, row, frame, size)
    if predicted.quantity == "disparity":
        depth = torch.where(depth > 0, 1 / depth, torch.nan)
    return unproject(depth, resize_intrinsics(intrinsics, predicted.size, size))
