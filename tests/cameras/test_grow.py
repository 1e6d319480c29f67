from dataclasses import replace

import pytest
import torch

from geo4d.cameras.grow import grow, outward
from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import BundleState
from geo4d.geometry.poses import inverse
from tests.support.adjustments import centre_error, problem, wall


def test_cameras_come_back_from_a_run_of_solved_ones():
    truth, observations = problem(num_cameras=12, num_points=400, span=6, noise=0.05)
    w2c = torch.eye(4, dtype=torch.float64).repeat(12, 1, 1)
    w2c[4:8] = truth.w2c[4:8]
    solved = torch.zeros(12, dtype=torch.bool)
    solved[4:8] = True
    start = replace(truth, w2c=w2c)
    grown = grow(start, observations, solved, 0.05, outward((4, 8), 0, 12))
    assert centre_error(grown.w2c, truth.w2c) < 0.01


def test_a_zoom_is_followed_from_camera_to_camera():
    truth, observations = problem(num_cameras=12, num_points=400, span=6, noise=0.05)
    factor = 1.04 ** torch.arange(12, dtype=torch.float64)
    uv = observations.uv * factor[observations.camera, None]
    zoomed = Observations(observations.camera, observations.point, uv, observations.weight)
    true_focal = truth.log_focal + factor.log()
    solved = torch.zeros(12, dtype=torch.bool)
    solved[4:8] = True
    start = replace(
        truth,
        w2c=torch.where(solved[:, None, None], truth.w2c, torch.eye(4, dtype=torch.float64)),
        log_focal=torch.where(solved, true_focal, 0.0),  # what is not solved may say anything
    )
    grown = grow(start, zoomed, solved, 0.05, outward((4, 8), 0, 12), zoom=True)
    assert float((grown.log_focal - true_focal).abs().max()) < 0.02
    assert centre_error(grown.w2c, truth.w2c) < 0.01


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_growth_follows_the_points_that_fit_not_the_movers(share):
    truth, observations = problem(num_cameras=14, num_points=500, span=7, noise=0.05)
    moving = observations.point < share * 500
    step = observations.camera[:, None] * torch.tensor([1.5, -1.0])
    uv = observations.uv + torch.where(moving[:, None], step, 0.0)
    spoiled = Observations(observations.camera, observations.point, uv, observations.weight)
    w2c = torch.eye(4, dtype=torch.float64).repeat(14, 1, 1)
    w2c[:5] = truth.w2c[:5]
    solved = torch.arange(14) < 5
    grown = grow(replace(truth, w2c=w2c), spoiled, solved, 0.05, outward((0, 5), 0, 14))
    assert centre_error(grown.w2c, truth.w2c) < 0.01


def test_the_order_goes_outward_on_both_sides():
    assert outward((3, 5), 0, 8) == [5, 6, 7, 2, 1, 0]
    assert outward((0, 4), 0, 4) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_the_scale_of_a_long_path_along_a_wall_lasts(seed):
    # Few tracks, short ones, and a scene that is nearly flat: steps of the cameras that come out a little too short
    # must not add up.
    truth, observations = wall(120, noise=0.3, seed=seed)
    solved = torch.arange(120) < 12
    w2c = torch.where(solved[:, None, None], truth, torch.eye(4, dtype=torch.float64))
    points = torch.zeros(int(observations.point.max()) + 1, 4, dtype=torch.float64)
    log_focal = torch.full((120,), 140.0, dtype=torch.float64).log()
    grown = grow(
        BundleState(w2c, log_focal, points), observations, solved, 0.25, outward((0, 12), 0, 120)
    ).w2c
    for low in (40, 70, 100):
        far = [float((inverse(w)[low + 15] - inverse(w)[low])[:3, 3].norm()) for w in (grown, truth)]
        assert far[0] / far[1] == pytest.approx(1, abs=0.15)
