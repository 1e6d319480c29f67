import pytest
import torch

from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics.points import point_scores, point_sums
from tests.support.metrics import maps


def test_point_metrics_and_their_coverage():
    _, r, valid = maps()
    reference = torch.stack([r, -r, r], -1)
    predicted = reference * 1.1
    scores = point_scores(point_sums(predicted, reference, valid))
    assert scores.point_rel == pytest.approx(0.1, rel=1e-5)
    assert scores.point_delta == 1
    predicted[0] = torch.nan
    third = point_scores(point_sums(predicted, reference, valid))
    assert third.point_delta == pytest.approx(2 / 3)
    assert third.point_rel == pytest.approx(0.1, rel=1e-5)
    with pytest.raises(DegenerateInput):
        point_scores(point_sums(predicted, reference, torch.zeros_like(valid)))
