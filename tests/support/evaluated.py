"""A data set on disk and settings to evaluate it with."""

from geo4d.evaluation.run import evaluate
from geo4d.evaluation.settings import EvaluationSettings


def settings(predictions, **changes):
    return EvaluationSettings(**{"model": None, "predictions": predictions, **changes})


def evaluate_folder(root, predictions, work=None, **changes):
    return evaluate("folder", root, settings(predictions, **changes), work=work)
