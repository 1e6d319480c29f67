import math

import numpy as np
import pytest
import torch

from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics.depth import depth_scores, depth_sums
from tests.support.metrics import maps


def test_depth_metrics_equal_their_formulas():
    p, r, valid = maps()
    scores = depth_scores(depth_sums(p, r, valid))
    a, b = p[valid].double(), r[valid].double()
    ratio = torch.maximum(a / b, b / a)
    log = a.log() - b.log()
    assert scores.abs_rel == pytest.approx(float(((a - b).abs() / b).mean()))
    assert scores.sq_rel == pytest.approx(float(((a - b) ** 2 / b).mean()))
    assert scores.rmse == pytest.approx(float(((a - b) ** 2).mean().sqrt()))
    assert scores.rmse_log == pytest.approx(float((log**2).mean().sqrt()))
    assert scores.silog == pytest.approx(100 * float((log**2).mean() - log.mean() ** 2) ** 0.5)
    assert scores.log10 == pytest.approx(float(log.abs().mean()) / math.log(10))
    for k, value in enumerate((scores.delta_125, scores.delta_125_2, scores.delta_125_3), 1):
        assert value == pytest.approx(float((ratio < 1.25**k).double().mean()))
    assert scores.coverage == 1
    assert scores.num_pixels == int(valid.sum())


def test_frame_average_is_the_mean_of_frame_scores():
    p, r, valid = maps(1)
    together = depth_scores(depth_sums(p, r, valid), average="frame")
    alone = [depth_scores(depth_sums(p[t : t + 1], r[t : t + 1], valid[t : t + 1])) for t in range(3)]
    for name in ("abs_rel", "sq_rel", "rmse", "rmse_log", "irmse", "delta_125"):
        assert getattr(together, name) == pytest.approx(np.mean([getattr(s, name) for s in alone])), name


def test_pixels_without_prediction_are_wrong_in_delta_and_absent_from_errors():
    p, r, valid = maps(2)
    whole = depth_scores(depth_sums(p, r, valid))
    gone = valid & (torch.arange(8) < 4)
    holes = torch.where(gone, torch.nan, p)
    part = depth_scores(depth_sums(holes, r, valid))
    kept = depth_scores(depth_sums(p, r, valid & ~gone))
    share = float((valid & ~gone).sum() / valid.sum())
    assert part.coverage == pytest.approx(share)
    assert part.abs_rel == pytest.approx(kept.abs_rel)
    assert part.delta_125 == pytest.approx(kept.delta_125 * share)
    assert part.delta_125 < whole.delta_125


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_every_kind_of_missing_prediction_counts_as_uncovered(value):
    _, r, valid = maps()
    scores = depth_scores(depth_sums(torch.full_like(r, value), r, valid))
    assert scores.coverage == 0
    assert scores.delta_125 == 0
    assert scores.abs_rel is None


def test_empty_frames_are_counted_and_an_empty_sequence_is_degenerate():
    p, r, valid = maps()
    valid[1] = False
    scores = depth_scores(depth_sums(p, r, valid), average="frame")
    assert (scores.num_frames, scores.num_empty_frames) == (2, 1)
    assert math.isfinite(scores.abs_rel)
    with pytest.raises(DegenerateInput, match="no valid"):
        depth_scores(depth_sums(p, r, torch.zeros_like(valid)))
