import math

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import unproject
from geo4d.models.geometrycrafter.decode import maps_to_points
from geo4d.training.tasks.geometrycrafter.maps import frames_seen, normalise_window
from geo4d.training.tasks.geometrycrafter.windows import cut_window


def test_true_maps_decode_to_the_true_points(wall) -> None:
    """Normalised maps through inference's own decoder of maps: points of the scene, over their mean depth."""
    clip = wall(2)
    window = cut_window(clip, None, np.arange(3), (64, 64), 1.0, 0)
    found = normalise_window(window.depth[0], window.intrinsics[0])
    truth = unproject(window.depth[0], window.intrinsics[0])
    valid = torch.isfinite(window.depth[0])
    assert torch.equal(found.valid, valid)
    assert found.scale == pytest.approx(float(window.depth[0][valid].mean()), rel=1e-5)
    points = maps_to_points(found.maps, found.maps.theta[:, 0, 0]) * found.scale
    assert float((points - truth)[valid].abs().max()) < 5e-3
    height, width = window.depth.shape[-2:]
    theta = math.hypot((width - 1) / 2 / 80, (height - 1) / 2 / 80)
    assert float(found.maps.theta[0, 0, 0]) == pytest.approx(theta, rel=1e-4)
    assert bool((found.maps.mask[~valid] == -1).all())


def test_frames_of_a_window_that_pass_are_consecutive_and_drawn_by_the_sample() -> None:
    found = [frames_seen(sample, 8, 3) for sample in range(200)]
    assert {part.stop - part.start for part in found} == {3}
    assert {part.start for part in found} == set(range(6))
    assert found == [frames_seen(sample, 8, 3) for sample in range(200)]
    for seen in (None, 8, 9):
        assert frames_seen(5, 8, seen) == slice(0, 8)


def test_a_part_of_a_window_keeps_what_the_window_was_divided_by(wall) -> None:
    clip = wall(2)
    window = cut_window(clip, None, np.arange(3), (64, 64), 1.0, 0)
    depth = window.depth[0] * torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    whole = normalise_window(depth, window.intrinsics[0])
    last = whole.part(slice(2, 3))
    assert torch.equal(last.encoder_input, whole.encoder_input[2:])
    assert torch.equal(last.valid, whole.valid[2:])
    assert last.scale == whole.scale
    # By itself it would look like any other frame.
    alone = normalise_window(depth[2:], window.intrinsics[0, 2:])
    farther = (last.maps.log_depth - alone.maps.log_depth)[last.valid]
    assert float(farther.min()) > 0.4
