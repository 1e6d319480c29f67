"""Pictures of one scored sequence: where depth is wrong, and where the camera went."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from geo4d.datasets.base import Sequence
from geo4d.errors import MissingExtraError
from geo4d.evaluation.metrics.poses import align_cameras
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import Protocol
from geo4d.evaluation.scoring.depth import aligned_depth


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "eval", "plotting") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_error_maps(
    path: Path, predicted: Predicted, sequence: Sequence, protocol: Protocol, *, num_frames: int = 4
) -> None:
    """Reference depth, aligned prediction and relative error of a few frames, as one picture.

    Raises:
        DegenerateInput: the reference has no valid pixel.
        MissingExtraError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    aligned, reference = aligned_depth(predicted, sequence, protocol)
    chosen = np.unique(np.linspace(0, sequence.num_frames - 1, num_frames).round().astype(int))
    near, far = np.nanpercentile(reference, (2, 98))
    figure, axes = pyplot.subplots(
        3, len(chosen), figsize=(3.2 * len(chosen), 7), squeeze=False, layout="constrained"
    )
    for column, frame in enumerate(chosen):
        error = np.abs(aligned[frame] - reference[frame]) / reference[frame]
        for row, (image, limits, colours, label) in enumerate(
            (
                (reference[frame], (near, far), "viridis", "reference"),
                (aligned[frame], (near, far), "viridis", "aligned prediction"),
                (error, (0, 0.5), "magma", "|p - r| / r"),
            )
        ):
            shown = axes[row, column].imshow(image, vmin=limits[0], vmax=limits[1], cmap=colours)
            axes[row, column].set_title(f"{label}, frame {frame}", fontsize=8)
            axes[row, column].axis("off")
    figure.colorbar(shown, ax=axes[2, :].tolist(), shrink=0.8)
    figure.suptitle(f"{sequence.name}, protocol {protocol.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def save_trajectories(path: Path, predicted: Predicted, sequence: Sequence, protocol: Protocol) -> None:
    """Aligned and reference camera centres, in the plane of the largest extent of the reference.

    Raises:
        ValueError: there are no poses to draw.
        MissingExtraError: matplotlib is not installed.
    """
    if sequence.c2w is None or predicted.c2w is None or protocol.poses is None:
        raise ValueError("expected poses in the sequence, the prediction and the protocol")
    pyplot = _pyplot()
    frames = predicted.frames
    ours, theirs = np.asarray(predicted.c2w, np.float64), np.asarray(sequence.c2w, np.float64)[frames]
    both = np.isfinite(ours).all(axis=(1, 2)) & np.isfinite(theirs).all(axis=(1, 2))
    if not both.any():
        raise ValueError(f"expected at least one frame with both poses in {sequence.name}, got none")
    aligned, _ = align_cameras(
        torch.from_numpy(ours[both]), torch.from_numpy(theirs[both]), protocol.poses.alignment
    )
    truth = np.asarray(sequence.c2w, np.float64)[:, :3, 3]
    truth = truth[np.isfinite(truth).all(axis=1)]
    order = np.argsort(-np.ptp(truth, axis=0))
    first, second = sorted(order[:2])
    figure, axis = pyplot.subplots(figsize=(5, 5))
    axis.plot(truth[:, first], truth[:, second], "k--", label="reference")
    centres = aligned[:, :3, 3].numpy()
    axis.plot(
        centres[:, first],
        centres[:, second],
        "-",
        color="tab:blue",
        label=f"prediction ({protocol.poses.alignment})",
    )
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("xyz"[first])
    axis.set_ylabel("xyz"[second])
    axis.set_title(sequence.name)
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
