from dataclasses import replace

import pytest
import torch

from geo4d.fusion import align
from geo4d.fusion.alignment import AlignConfig, CameraEvidence, find_bad_windows
from geo4d.geometry.cameras import fov_from_focal


@pytest.mark.parametrize("size", [(24, 36), (36, 24)])
def test_focal_limits_are_those_of_the_field_of_view_across_the_longer_side(size):
    limits = torch.tensor(replace(AlignConfig(), fov_limits_deg=(20.0, 110.0)).focal_limits(size))
    assert torch.rad2deg(fov_from_focal(limits, 36)).tolist() == pytest.approx([110.0, 20.0], rel=1e-5)


def test_means_over_frames_weigh_as_much_as_sums_at_the_calibrated_length():
    assert AlignConfig.corrected().per_frame_factor(50) == 1
    assert AlignConfig.corrected().per_frame_factor(200) == 0.25
    assert AlignConfig.published().per_frame_factor(200) == 1


def test_bad_windows_hardly_count_and_in_the_published_form_count_in_full():
    bad = torch.tensor([False, True])
    assert AlignConfig.corrected().window_weight(bad).tolist() == pytest.approx([1.0, 0.02])
    assert AlignConfig.published().window_weight(bad).tolist() == [1.0, 1.0]


def test_evidence_of_some_frames(make_wall):
    wall = make_wall(num_frames=8)
    part = CameraEvidence(wall.c2w, wall.intrinsics, torch.linspace(0, 1, 8)).at(torch.tensor([2, 5]))
    assert torch.equal(part.c2w, wall.c2w[[2, 5]])
    assert torch.equal(part.intrinsics, wall.intrinsics[[2, 5]])
    assert part.confidence.tolist() == pytest.approx([2 / 7, 5 / 7])


def test_an_alignment_without_a_good_window_is_refused(make_wall):
    wall = make_wall(num_frames=12)
    good = align(wall.predictions, num_frames=12)
    assert find_bad_windows(good) == []
    unseen = replace(
        good,
        reliable=torch.zeros_like(good.reliable),
        window_weight=torch.full_like(good.window_weight, 0.02),
        c2w=None,
    )
    assert find_bad_windows(unseen) == [0, 1]
    with pytest.raises(ValueError, match="CameraEvidence"):
        _ = unseen.cameras
