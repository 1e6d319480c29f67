import pytest
import torch

from geo4d.models.geometrycrafter.prior_maps import (
    condition_prior,
    frame_records,
    merge_statistics,
)


def room(num_frames=2, height=12, width=16, tangent=(0.6, 0.45)):
    """Points of a slanted wall seen by a camera with the given corner-aligned tangents."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    z = 4 + x + torch.arange(num_frames)[:, None, None]
    points = torch.stack([tangent[0] * x * z, tangent[1] * y * z, z], dim=-1)
    return points, torch.ones(points.shape[:3], dtype=torch.bool)


def test_recorded_maps(golden):
    data = golden("prior")
    statistics = merge_statistics(frame_records(data["points"], data["mask"]))
    maps = condition_prior(data["points"], data["mask"], statistics)
    low_high = torch.tensor([statistics.disparity_low, statistics.disparity_high])
    assert (low_high - data["disp_min_max"]).abs().max() < 1e-5
    assert (maps.disparity[:, ::4, ::4] - data["disparity_every_4th"]).abs().max() < 1e-5
    assert (maps.log_depth[:, ::4, ::4] - data["log_depth_every_4th"]).abs().max() < 1e-5
    assert (maps.intrinsics - data["intrinsic_map"]).abs().max() < 1e-5
    resized = maps.encoder_input(tuple(data["size"].tolist()))
    assert (resized[:, 1:2, ::4, ::4] - data["resized_logz_every_4th"]).abs().max() < 2e-3


def test_frames_one_by_one_give_the_statistics_of_all(golden):
    data = golden("prior")
    records = [frame_records(data["points"][t : t + 1], data["mask"][t : t + 1]) for t in range(3)]
    together = merge_statistics(frame_records(data["points"], data["mask"]))
    assert merge_statistics(torch.cat(records)) == together


def test_maps_do_not_depend_on_the_unit_of_the_prior():
    points, mask = room()
    mask[:, :3] = False
    maps = [condition_prior(p, mask, merge_statistics(frame_records(p, mask))) for p in (points, 7 * points)]
    for name, value in vars(maps[0]).items():
        torch.testing.assert_close(getattr(maps[1], name), value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 16), (11, 16), (12, 15), (11, 15)])
def test_intrinsics_of_a_pinhole_view_at_even_and_odd_sizes(size):
    points, mask = room(height=size[0], width=size[1])
    maps = condition_prior(points, mask, merge_statistics(frame_records(points, mask)))
    expected = torch.tensor([0, 0, 0.6, 0.45])
    torch.testing.assert_close(maps.intrinsics, expected.expand(2, 4), atol=1e-5, rtol=1e-5)
    assert all(torch.isfinite(value).all() for value in vars(maps).values())


def test_a_single_row_is_finite():
    points, mask = room(height=1)
    maps = condition_prior(points, mask, merge_statistics(frame_records(points, mask)))
    assert all(torch.isfinite(value).all() for value in vars(maps).values())


@pytest.mark.parametrize("depth", [-2.0, 0.0, -1e-7, float("nan"), float("inf")])
def test_impossible_depth_leaves_no_trace_elsewhere(depth):
    points, mask = room()
    spoiled = points.clone()
    spoiled[0, 2, 3, 2] = depth
    expected_mask = mask.clone()
    expected_mask[0, 2, 3] = False
    statistics = merge_statistics(frame_records(spoiled, mask))
    assert statistics == merge_statistics(frame_records(points, expected_mask))
    maps = condition_prior(spoiled, mask, statistics)
    reference = condition_prior(points, expected_mask, statistics)
    assert maps.mask[0, 2, 3] == -1
    assert maps.log_depth[0, 2, 3] == 0
    torch.testing.assert_close(maps.disparity, reference.disparity)
    torch.testing.assert_close(maps.log_depth, reference.log_depth)
    torch.testing.assert_close(maps.intrinsics, reference.intrinsics, atol=1e-5, rtol=1e-5)


def test_empty_masks_give_constant_finite_maps():
    points, mask = room()
    mask[:] = False
    statistics = merge_statistics(frame_records(points, mask))
    assert (statistics.disparity_low, statistics.disparity_high) == (0, 0)
    maps = condition_prior(points, mask, statistics).encoder_input((8, 8))
    assert torch.isfinite(maps).all()
    assert (maps[:, 2] == -1).all()
    assert (maps[:, 3] == -1).all()


def test_frame_without_any_possible_depth_gets_the_default_view():
    points, mask = room()
    points[1, ..., 2] = -1
    maps = condition_prior(points, mask, merge_statistics(frame_records(points, mask)))
    assert torch.isfinite(maps.encoder_input((8, 8))).all()
    assert maps.intrinsics[1, 2] == pytest.approx(3**-0.5)
    torch.testing.assert_close(maps.intrinsics[0], torch.tensor([0, 0, 0.6, 0.45]), atol=1e-5, rtol=1e-5)
