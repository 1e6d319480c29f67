"""Planned sizes and the way back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d.video.resize import GEO4D_SIZES, plan_size, resize_video


@pytest.mark.parametrize("size", GEO4D_SIZES)
def test_trained_sizes_are_kept_in_both_orientations(size: tuple[int, int]) -> None:
    assert plan_size(size).model == size
    assert plan_size(size[::-1]).model == size[::-1]
    assert plan_size((3 * size[0], 3 * size[1])).model == size


@settings(deadline=None)
@given(st.integers(16, 4000), st.integers(16, 4000))
def test_any_size_has_a_plan(height: int, width: int) -> None:
    plan = plan_size((height, width))
    h, w = plan.model
    assert h % 64 == 0
    assert w % 64 == 0
    assert 192 * 640 <= h * w <= 384 * 512
    if 1 / 3 < height / width < 3:
        assert 0.8 < plan.stretch < 1.25


def test_area_limit() -> None:
    assert plan_size((480, 640), max_area=65536).model == (192, 256)
    with pytest.raises(ValueError, match="area"):
        plan_size((480, 640), max_area=1000)


def test_pictures_keep_their_range_and_mean() -> None:
    rgb = torch.rand(2, 90, 120, 3)
    small = resize_video(rgb, (30, 40))
    assert small.shape == (2, 30, 40, 3)
    assert small.min() >= 0
    assert small.max() <= 1
    torch.testing.assert_close(small.mean(), rgb.mean(), atol=2e-3, rtol=0)
    assert resize_video(rgb, (90, 120)) is rgb
