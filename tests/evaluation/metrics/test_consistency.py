import math

import pytest
import torch

from geo4d.evaluation.metrics.consistency import (
    depth_change_sums,
    log_error_change,
    static_correspondences,
    track_depth_change_sums,
    track_pixels,
    translation_parallax,
    unmoved_change,
)
from geo4d.geometry.poses import so3_exp
from tests.support.metrics import intrinsics


def test_parallax_is_what_translation_adds():
    K = intrinsics(50, 50, 32, 24).repeat(3, 1, 1)
    c2w = torch.eye(4).repeat(3, 1, 1).double()
    depth = torch.full((48, 64), 5.0)
    c2w[1, :3, :3] = so3_exp(torch.tensor([0, 0.2, 0]).double())  # turning alone is none
    assert translation_parallax(depth, K, c2w, 0) == pytest.approx(0, abs=1e-9)
    c2w[2, 0, 3] = 0.7  # 0.7 m sideways at 5 m: 50 * 0.7 / 5
    assert translation_parallax(depth, K, c2w, 0) == pytest.approx(7)
    assert translation_parallax(torch.full((48, 64), torch.inf), K, c2w, 0) == 0


def test_error_changes_are_read_at_the_same_pixels():
    """A slanted plane seen from a moving camera: the rounding of tracks must not look like flicker."""
    row = torch.arange(1, 25).double()[:, None].expand(24, 32)
    reference = torch.stack([1 / row, 1 / (row + 0.4)])  # as if the picture slid by less than a pixel
    source = torch.tensor([[3, 4], [9, 9], [20, 30]])
    assert log_error_change(3 * reference, reference, source, source).abs().max() < 1e-12
    pulsing = torch.stack([reference[0], reference[1] * 1.02])
    assert torch.allclose(
        log_error_change(pulsing, reference, source, source), torch.tensor(1.02).double().log()
    )
    pulsing[1, 9, 9] = torch.nan
    assert len(log_error_change(pulsing, reference, source, source)) == 2


def test_tracks_become_pixels_seen_in_both_frames():
    tracks = torch.tensor([[[1.7, 2.2], [5.0, 5.0], [3.0, 3.0]], [[2.1, 2.9], [8.5, 5.0], [3.0, 3.0]]])
    visible = torch.tensor([[True, True, False], [True, True, True]])
    source, target = track_pixels(tracks, visible, (6, 8))
    assert source.tolist() == [[2, 1]]
    assert target.tolist() == [[2, 2]]


def plane_scene():
    """A slanted plane before a camera that moves sideways and forward; exact depth."""
    intrinsics = torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]).repeat(2, 1, 1)
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, :3, 3] = torch.tensor([0.2, 0.0, 0.3])
    from geo4d.geometry.cameras import camera_rays

    rays = camera_rays(intrinsics, (30, 40))
    normal, offset = torch.tensor([0.2, 0.1, 1.0]), 5.0
    depth = (offset - (c2w[:, :3, 3] * normal).sum(-1))[:, None, None] / (rays * normal).sum(-1)
    return depth, intrinsics, c2w


def test_depth_change_of_the_truth_is_zero_and_of_flicker_is_its_size():
    depth, intrinsics, c2w = plane_scene()
    source, target = static_correspondences(depth, intrinsics, c2w)
    assert source.shape[0] > 40
    exact = depth_change_sums(depth, depth, source, target)
    assert float(exact[2]) == 0
    assert float(exact[0]) == float(exact[1]) == source.shape[0]
    flicker = depth * torch.tensor([1.0, 1.1])[:, None, None]
    change = depth_change_sums(flicker, depth, source, target)
    assert float(change[2] / change[1]) == pytest.approx(math.log(1.1), rel=1e-4)
    holes = flicker.clone()
    holes[1] = torch.nan
    assert float(depth_change_sums(holes, depth, source, target)[1]) == 0


def test_moving_and_hidden_pixels_are_no_tracks():
    depth, intrinsics, c2w = plane_scene()
    all_tracks = static_correspondences(depth, intrinsics, c2w)[0].shape[0]
    static = torch.ones(30, 40, dtype=torch.bool)
    static[:, :20] = False
    assert static_correspondences(depth, intrinsics, c2w, static)[0].shape[0] < all_tracks
    occluded = depth.clone()
    occluded[1] = 1.0
    assert static_correspondences(occluded, intrinsics, c2w)[0].shape[0] == 0


def test_given_tracks_measure_depth_change():
    depth = torch.full((2, 4, 4), 2.0)
    depth[1] = 4.0
    tracks = torch.tensor([[1.5, 1.5], [3.5, 0.5], [9.0, 1.0], [float("nan"), 1.0]]).expand(2, 4, 2)
    visible = torch.tensor([[True, True, True, True], [True, False, True, True]])
    sums = track_depth_change_sums(depth, torch.full((2, 4), 2.0), tracks, visible)
    assert sums.tolist() == pytest.approx(
        [1, 1, math.log(2)]
    )  # hidden, outside and unknown ones are no tracks
    depth[1] = torch.nan
    assert track_depth_change_sums(depth, torch.full((2, 4), 2.0), tracks, visible).tolist() == [1, 0, 0]


def test_unmoved_pixels_need_no_truth():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(20, 30, 3, generator=generator)
    later = picture.clone()
    later[:, 20:] = torch.rand(20, 10, 3, generator=generator)  # something came by
    depth = torch.full((2, 20, 30), 3.0)
    depth[1] *= 1.02
    depth[1, :, 20:] *= 2
    depth[0, 5, 5] = torch.nan
    change = unmoved_change(depth, torch.stack([picture, later]))
    assert torch.allclose(change, torch.tensor(1.02).double().log(), atol=1e-6)
    assert 20 * 14 <= len(change) <= 20 * 20 - 1
