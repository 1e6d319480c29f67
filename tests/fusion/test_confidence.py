import math

import pytest
import torch

from geo4d.fusion.confidence import CURVE, HIGH, LOW, ConfidenceCurve


def signs(spread: float, windows: float, frames: float) -> torch.Tensor:
    return torch.tensor([spread, windows, frames], dtype=torch.float32)[:, None, None]


def test_the_curve_is_the_logistic_function_of_a_sum() -> None:
    curve = ConfidenceCurve(0.5, (-1.0, -2.0, -3.0), 0.25)
    odds = 0.5 + 1.0 * 1 + 2.0 * 2 + 3.0 * 0.5
    assert float(curve(signs(-1, -2, -0.5))) == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)


def test_a_frame_without_neighbours_takes_the_share_of_not_knowing() -> None:
    curve = ConfidenceCurve(0.5, (-1.0, -2.0, -3.0), 0.25)
    odds = 0.5 + 1 + 4 + 0.25
    assert float(curve(signs(-1, -2, math.nan))) == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)


def test_errors_beyond_the_range_count_as_its_ends() -> None:
    assert torch.equal(CURVE(signs(-50, -50, -50)), CURVE(signs(LOW, LOW, LOW)))
    assert torch.equal(CURVE(signs(50, 50, 50)), CURVE(signs(HIGH, HIGH, HIGH)))


@pytest.mark.parametrize("which", range(3))
def test_the_fitted_curve_falls_with_every_sign_of_error(which: int) -> None:
    values = torch.full((3, 1, 20), -2.0)
    values[which, 0] = torch.linspace(LOW, HIGH, 20)
    found = CURVE(values)[0]
    assert (found.diff() < 0).all()
    assert found.min() > 0
    assert found.max() < 1


def test_small_errors_are_surely_within_a_tenth_and_large_ones_are_not() -> None:
    small, large = math.log(0.01), math.log(0.5)
    assert float(CURVE(signs(small, small, small))) > 0.95
    assert float(CURVE(signs(large, large, large))) < 0.1
