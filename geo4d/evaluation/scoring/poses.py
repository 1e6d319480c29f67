"""Camera metrics of a sequence."""

import numpy as np
import torch

from geo4d.datasets.base import Sequence
from geo4d.evaluation.metrics.poses import pose_scores
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import Protocol
from geo4d.evaluation.scoring.frames import spread


def score_poses(
    predicted: Predicted,
    row: dict[int, int],
    sequence: Sequence,
    protocol: Protocol,
    degenerate: dict[str, str],
    warnings: list[str],
) -> dict[str, float | None]:
    """Errors of the cameras after a Sim(3); empty where they cannot be scored, which ``degenerate`` then says.

    Args:
        row: frame of the sequence -> row of the prediction.
        degenerate, warnings: are appended to.
    """
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
        torch.from_numpy(spread(np.asarray(predicted.c2w, np.float64), row, sequence.num_frames)[known]),
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
