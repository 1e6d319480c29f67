"""Predictor (or a folder of predictions) x benchmark -> result with provenance. ``score`` and ``load_ground_truth`` are
what other commands need to score one run."""

from geo4d.datasets.base import load_ground_truth
from geo4d.evaluation.predicted import from_reconstruction, load_predictions
from geo4d.evaluation.protocols import PROTOCOLS
from geo4d.evaluation.score import SequenceScore, score

__all__ = [
    "PROTOCOLS",
    "SequenceScore",
    "from_reconstruction",
    "load_ground_truth",
    "load_predictions",
    "score",
]
