"""Where a scene starts from: focal lengths."""

from dataclasses import replace

import pytest
import torch

from geo4d.fusion.alignment import AlignConfig, CameraEvidence
from geo4d.fusion.start import start_scene
from tests.fusion.test_scene import scene_of


@pytest.fixture
def zooming(make_wall):
    """A wall whose cameras are known but for the length of a lens that zooms; one frame knows nothing."""
    wall = make_wall()
    count = wall.num_frames
    intrinsics = wall.intrinsics.clone()
    profile = torch.linspace(0, 0.5, count, dtype=torch.float64).exp()
    intrinsics[:, [0, 1], [0, 1]] *= profile[:, None]
    confidence = torch.ones(count, dtype=torch.float64)
    confidence[3] = 0
    intrinsics[3, [0, 1], [0, 1]] = 1.0  # a placeholder
    everywhere = torch.ones(count, dtype=torch.bool)
    evidence = CameraEvidence(
        c2w=wall.c2w, intrinsics=intrinsics, confidence=confidence, focal_known=~everywhere, zooms=everywhere
    )
    return wall, evidence, profile


def test_a_zoom_that_tracks_tell_keeps_its_course_and_one_factor_is_left(zooming) -> None:
    wall, evidence, profile = zooming
    start = start_scene(scene_of(wall, AlignConfig.corrected(), motion=evidence), AlignConfig.corrected())
    assert start.focal_kind == "shared"
    course = start.variables.log_focal.cpu() - start.variables.log_focal[0].cpu()
    torch.testing.assert_close(course, profile.log(), atol=1e-6, rtol=0)


def test_a_zoom_whose_length_is_known_is_held(zooming) -> None:
    wall, evidence, _ = zooming
    known = replace(evidence, focal_known=torch.ones_like(evidence.focal_known))
    start = start_scene(scene_of(wall, AlignConfig.corrected(), motion=known), AlignConfig.corrected())
    assert start.focal_kind == "fixed"


def test_without_a_zoom_all_frames_share_one(zooming) -> None:
    wall, evidence, _ = zooming
    none = replace(evidence, zooms=torch.zeros_like(evidence.zooms))
    start = start_scene(scene_of(wall, AlignConfig.corrected(), motion=none), AlignConfig.corrected())
    assert start.focal_kind == "shared"
    assert float(start.variables.log_focal.std()) == 0
