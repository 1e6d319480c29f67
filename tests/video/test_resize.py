"""Planned sizes and the way back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d.geometry.cameras import centred_intrinsics, project
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


def test_intrinsics_go_there_and_back() -> None:
    plan = plan_size((375, 1242))
    intrinsics = centred_intrinsics(torch.tensor([700.0], dtype=torch.float64), (375, 1242))
    there = plan.intrinsics_to_model(intrinsics)
    torch.testing.assert_close(plan.intrinsics_to_source(there), intrinsics)
    point = torch.tensor([[[0.3, -0.2, 2.0]]], dtype=torch.float64)
    source, model = project(point, intrinsics)[0], project(point, there)[0]
    factors = torch.tensor([plan.model[1] / 1242, plan.model[0] / 375], dtype=torch.float64)
    torch.testing.assert_close(model, source * factors)


def test_maps_of_a_plane_come_back() -> None:
    plan = plan_size((96, 160), max_area=8192)
    h, w = plan.model
    rows = (torch.arange(h) + 0.5) / h
    maps = rows[None, :, None, None].expand(1, h, w, 1)
    back = plan.maps_to_source(maps)
    expected = ((torch.arange(96) + 0.5) / 96)[None, :, None, None].expand(1, 96, 160, 1)
    inside = slice(4, -4)
    torch.testing.assert_close(back[:, inside], expected[:, inside], atol=1e-5, rtol=0)
    holes = maps.clone()
    holes[0, 0, 0] = torch.nan
    nearest = plan.maps_to_source(holes, "nearest")
    assert torch.isnan(nearest).sum() <= 9
    assert set(nearest[~torch.isnan(nearest)].tolist()) <= set(maps.flatten().tolist())


def test_pictures_keep_their_range_and_mean() -> None:
    rgb = torch.rand(2, 90, 120, 3)
    small = resize_video(rgb, (30, 40))
    assert small.shape == (2, 30, 40, 3)
    assert small.min() >= 0
    assert small.max() <= 1
    torch.testing.assert_close(small.mean(), rgb.mean(), atol=2e-3, rtol=0)
    assert resize_video(rgb, (90, 120)) is rgb
