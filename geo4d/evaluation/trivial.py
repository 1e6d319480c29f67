"""The trivial predictors of the synthetic benchmark: a mean picture, a camera that stands still."""

from typing import Any

import numpy as np

from geo4d.datasets.base import Sequence
from geo4d.evaluation.average import summarise
from geo4d.evaluation.predicted import Predicted
from geo4d.evaluation.protocols import Protocol
from geo4d.evaluation.score import score


def load_template() -> np.ndarray:
    """[h, w] mean disparity of training scenes (each divided by its own mean), of unknown scale and shift."""
    from importlib import resources

    with resources.as_file(resources.files("geo4d.evaluation").joinpath("data/template.npz")) as path:
        return np.asarray(np.load(path)["disparity"], np.float32)


def score_trivial(sequence: Sequence, protocol: Protocol) -> dict[str, Any]:
    """Scores of a sequence if every frame had the mean disparity of the training scenes and no camera moved."""
    template = load_template()
    still = Predicted(
        frames=np.arange(sequence.num_frames),
        size=template.shape,  # type: ignore[arg-type]
        maps=np.broadcast_to(template, (sequence.num_frames, *template.shape)),
        quantity="disparity",
        scale_kind="affine",
        c2w=np.tile(np.eye(4), (sequence.num_frames, 1, 1)),
    )
    scores = score(still, sequence, protocol).metrics
    return {
        "template": {name: scores.get(name) for name in ("abs_rel", "delta_125")},
        "static": {name: scores.get(name) for name in ("ate", "rpe_trans", "rpe_rot_deg", "rot_deg")},
    }


def summarise_trivial(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and median over the sequences of what ``score_trivial`` gave."""
    result: dict[str, Any] = {}
    for kind in ("template", "static"):
        mean, median, _ = summarise([row["trivial"][kind] for row in rows])
        result[kind] = {**mean, "median": median}
    return result
