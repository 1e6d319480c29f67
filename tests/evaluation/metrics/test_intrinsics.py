import pytest
import torch

from geo4d.evaluation.metrics.intrinsics import intrinsics_scores
from tests.support.metrics import intrinsics


def test_intrinsics_errors_are_in_pixels_of_the_reference():
    reference = intrinsics(100, 100, 40, 30).repeat(4, 1, 1)
    # Maps half as wide and a third as high: true intrinsics are 50, 33.3, 20, 10 there.
    predicted = intrinsics(60, 100 / 3, 21, 10).repeat(4, 1, 1)
    predicted[3] = torch.nan
    scores = intrinsics_scores(predicted, (20, 40), reference, (60, 80))
    assert scores.fx_rel == pytest.approx(0.2)
    assert scores.fy_rel == pytest.approx(0)
    assert scores.fy_fx_rel == pytest.approx(1 / 6)
    assert scores.cx_rel == pytest.approx(2 / 80)
    assert scores.cy_rel == pytest.approx(0)
    assert scores.coverage == 0.75


def test_a_vertical_focal_length_taken_for_the_horizontal_one_is_seen():
    """96 x 160 maps of a 16:9 picture have pixels that are not square; calling them square is off by 1/15 in fy."""
    reference = intrinsics(1000, 1000, 960, 540)[None]
    square = intrinsics(1000 / 12, 1000 / 12, 80, 48)[None]
    scores = intrinsics_scores(square, (96, 160), reference, (1080, 1920))
    assert scores.fx_rel == pytest.approx(0)
    assert scores.fy_rel == pytest.approx(1 / 16)
    assert scores.fy_fx_rel == pytest.approx(1 / 16)
