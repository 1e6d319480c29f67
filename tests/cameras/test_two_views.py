import math

import torch

from geo4d.cameras.observations import Observations
from geo4d.cameras.two_views import fit_to_points, relative_pose, two_view_start, widest_pair
from geo4d.geometry.poses import inverse, rotation_angle
from tests.support.adjustments import centre_error, problem


def test_cameras_are_fitted_to_points_in_one_batch_and_others_stay():
    truth, observations = problem(num_cameras=6, num_points=60, span=6)
    start = truth.w2c.clone()
    start[2:5, :3, 3] += 0.05
    wanted = torch.tensor([False, False, True, True, False, False])
    everything = torch.ones(60, dtype=torch.bool)
    fitted = fit_to_points(observations, truth.points, everything, 400.0, 1e-3, start, wanted)
    torch.testing.assert_close(fitted[2:4], truth.w2c[2:4], atol=1e-6, rtol=0)
    assert torch.equal(fitted[4], start[4])


def test_a_pair_gives_its_relative_pose_up_to_scale_and_leaves_movers_out():
    truth, observations = problem(num_cameras=6, num_points=300, span=6, noise=0.1)
    uv = observations.uv.clone()
    moving = observations.point % 4 == 0
    uv[moving] += 4.0 * observations.camera[moving, None] * torch.tensor([0.3, 1.0])
    moved = Observations(observations.camera, observations.point, uv, observations.weight)
    found = relative_pose(moved, 300, 400.0, 0.3, (0, 5))
    assert found is not None
    pose, explained = found
    expected = truth.w2c[5] @ inverse(truth.w2c[:1])[0]
    assert math.degrees(float(rotation_angle(pose[:3, :3] @ expected[:3, :3].T))) < 0.3
    direction = expected[:3, 3] / expected[:3, 3].norm()
    assert float(pose[:3, 3] @ direction) > math.cos(math.radians(3))
    assert float(explained[1::4].double().mean()) > 0.9
    assert float(explained[::4].double().mean()) < 0.2


def test_two_views_and_their_points_give_all_cameras():
    truth, observations = problem(num_cameras=6, num_points=300, span=6, noise=0.05)
    pair = widest_pair(observations, 6, 400.0)
    assert pair[1] - pair[0] >= 4
    state = two_view_start(observations, 6, 300, 400.0, 0.3, pair)
    assert state is not None
    assert centre_error(state.w2c, truth.w2c) < 0.01


def test_too_few_points_give_nothing():
    _, observations = problem(num_cameras=3, num_points=10, span=3)
    assert relative_pose(observations, 10, 400.0, 0.3, (0, 2)) is None
