import math

import pytest
import torch

from geo4d.cameras.observations import Observations
from geo4d.cameras.rotations import bearing, fit_rotation, mean_directions, relative_rotations, rotation_chain
from geo4d.geometry.poses import rigid, rotation_angle, so3_exp


def turned(num_cameras=5, num_points=40, focal=300.0):
    """A camera that only turns, and what it sees of points at infinity."""
    g = torch.Generator().manual_seed(0)
    steps = torch.arange(num_cameras, dtype=torch.float64)
    R = so3_exp(torch.stack([0.02 * steps, 0.04 * steps, 0.01 * steps], 1))
    far = torch.cat([0.4 * torch.randn(num_points, 2, generator=g), torch.ones(num_points, 1)], 1).double()
    far /= far.norm(dim=1, keepdim=True)
    camera = torch.arange(num_cameras).repeat_interleave(num_points)
    point = torch.arange(num_points).repeat(num_cameras)
    seen = (R[camera] @ far[point][..., None])[..., 0]
    uv = focal * seen[:, :2] / seen[:, 2:]
    return R, far, Observations(camera, point, uv, torch.ones(len(uv), dtype=torch.float64))


@pytest.mark.parametrize("outliers", [0, 12])
def test_a_rotation_is_found_beside_outliers(outliers):
    R, far, _ = turned()
    target = far @ R[4].T
    target[:outliers] = bearing(
        50 * torch.randn(outliers, 2, generator=torch.Generator().manual_seed(1)).double(), 300.0
    )
    assert float(rotation_angle(fit_rotation(far, target) @ R[4].T)) < 2e-3


def test_no_vectors_are_no_turn():
    assert torch.equal(
        fit_rotation(torch.zeros(0, 3).double(), torch.zeros(0, 3).double()), torch.eye(3).double()
    )


def test_the_chain_and_the_directions_are_those_of_the_camera():
    R, far, observations = turned()
    chain = rotation_chain(observations, 5, 300.0)
    torch.testing.assert_close(chain, R @ R[:1].mT, atol=1e-6, rtol=0)
    w2c = rigid(R, torch.zeros(5, 3, dtype=torch.float64))
    points = mean_directions(w2c, torch.full((5,), math.log(300.0)).double(), observations, 41)
    torch.testing.assert_close(points[:40, :3], far)
    assert points[40].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert not points[:, 3].any()
    torch.testing.assert_close(
        rotation_angle(relative_rotations(w2c)), rotation_angle(R[:1].mT @ R), atol=1e-7, rtol=0
    )
