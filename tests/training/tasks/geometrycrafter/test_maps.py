import math

import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import unproject
from geo4d.models.geometrycrafter.decode import maps_to_points
from geo4d.training.tasks.geometrycrafter.maps import normalise_window
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
