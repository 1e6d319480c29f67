"""Points from cameras, and the level of their errors."""

import pytest
import torch

from geo4d.cameras.observations import Observations, point_area
from geo4d.cameras.points import level_of, point_error, renew_points, triangulate
from geo4d.cameras.terms import reprojection_error
from geo4d.cameras.thresholds import INLIER, LEAST_NOISE
from tests.support.adjustments import disturbed, problem


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_the_error_of_a_point_is_the_noise_of_its_tracks(noise):
    truth, observations = problem(num_cameras=10, num_points=800, span=10, noise=noise)
    state, _ = renew_points(truth, observations)
    error = point_error(reprojection_error(state, observations), observations, 800)
    # the mean of squares over all points is the variance of a coordinate, their own unknowns accounted for
    assert float(error.square().mean().sqrt()) == pytest.approx(noise, rel=0.1)


def test_the_level_keeps_nearly_all_inliers_and_no_mover():
    truth, observations = problem(num_cameras=8, num_points=600, span=6, noise=0.2)
    moving = observations.point % 2 == 0
    step = observations.camera[:, None] * torch.tensor([0.8, 0.6])
    moved = Observations(
        observations.camera,
        observations.point,
        observations.uv + torch.where(moving[:, None], step, 0.0),
        observations.weight,
    )
    _, error = renew_points(truth, moved)
    level = level_of(error, moved, point_area(moved, 600))
    static = error < INLIER * level
    assert float(static[1::2].double().mean()) > 0.98
    assert float(static[::2].double().mean()) < 0.35  # what moves along its epipolar lines looks still


def test_no_level_is_below_what_a_tracker_can_do():
    truth, observations = problem(num_points=60)
    error = point_error(reprojection_error(truth, observations), observations, 60)
    assert level_of(error, observations, point_area(observations, 60)) == LEAST_NOISE


def test_points_are_renewed_only_where_that_helps():
    truth, observations = problem(num_points=60, noise=0.1)
    worse = disturbed(truth, 0.02, 1.0)
    worse = type(worse)(truth.w2c, truth.log_focal, worse.points)
    _, before = renew_points(truth, observations)
    renewed, after = renew_points(worse, observations)
    assert bool((after <= point_error(reprojection_error(worse, observations), observations, 60)).all())
    torch.testing.assert_close(after, before, atol=0.05, rtol=0.2)
    assert renewed.points.shape == truth.points.shape


def test_noise_does_not_bring_points_nearer():
    # Seen eight times with an error of a pixel, on a path that also goes forward: the mean of many must be the truth.
    g = torch.Generator().manual_seed(0)
    num_cameras, num_points, focal = 8, 20_000, 140.0
    w2c = torch.eye(4, dtype=torch.float64).repeat(num_cameras, 1, 1)
    w2c[:, [0, 2], 3] = -0.1 * torch.arange(num_cameras, dtype=torch.float64)[:, None]
    camera = torch.arange(num_cameras).repeat_interleave(num_points)
    point = torch.arange(num_points).repeat(num_cameras)
    place = torch.tensor([0.5, 0.3, 6.0], dtype=torch.float64) + w2c[camera, :3, 3]
    uv = focal * place[:, :2] / place[:, 2:] + torch.randn(len(place), 2, generator=g, dtype=torch.float64)
    observations = Observations(camera, point, uv, torch.ones(len(uv), dtype=torch.float64))
    log_focal = torch.full((num_cameras,), focal, dtype=torch.float64).log()
    found = triangulate(w2c, log_focal, observations, num_points)
    times_too_near = 6 * found[:, 3] / found[:, 2]
    assert float(times_too_near.mean()) == pytest.approx(1, abs=0.0015)
    assert float(times_too_near.std()) < 0.07
