"""Refinement: areas, the measured level, cameras grown again, and other rigid parts of the scene."""

from dataclasses import replace

import torch

from geo4d.cameras.points import triangulate
from geo4d.cameras.refine import better, judge_state, refine, repair
from geo4d.cameras.terms import BundleState
from tests.support.adjustments import centre_error, problem
from tests.support.refined import FIXED


def test_the_level_is_that_of_the_noise_and_bad_tracks_are_left_out():
    truth, observations = problem(num_cameras=8, num_points=300, span=8, noise=0.05)
    wrong = observations.point % 3 == 0
    uv = observations.uv.clone()
    uv[wrong] += 5 * torch.randn(int(wrong.sum()), 2, generator=torch.Generator().manual_seed(1)).double()
    found = refine(truth, replace(observations, uv=uv), FIXED)
    assert 0.02 <= found.level < 0.08
    assert not bool(found.static[::3].any())
    assert float(found.static[1::3].double().mean()) > 0.9
    assert 0.55 < found.share_explained(0.25) < 0.8


def test_bent_ends_are_repaired_and_a_good_solution_is_kept():
    truth, observations = problem(num_cameras=12, num_points=400, span=6, noise=0.05)
    bent = truth.w2c.clone()
    bent[9:, :3, 3] += torch.tensor([0.6, 0.4, -0.5], dtype=torch.float64)
    points = triangulate(bent, truth.log_focal, observations, len(truth.points))
    before = judge_state(BundleState(bent, truth.log_focal, points), observations)
    after = repair(before, observations, FIXED)
    assert centre_error(after.state.w2c, truth.w2c) < 0.01 < centre_error(bent, truth.w2c)
    good = refine(truth, observations, FIXED)
    assert better(good, before) is good
    assert better(before, good) is good


def test_a_world_turned_over_through_infinity_comes_back_to_the_front():
    state, observations = problem()[:2]
    w2c, points = state.w2c.clone(), state.points.clone()
    w2c[:, :3, 3] *= -1
    points[:, 3] *= -1
    again = judge_state(replace(state, w2c=w2c, points=points), observations)
    assert (again.state.points[:, 3] > 0).double().mean() > 0.9
    torch.testing.assert_close(again.state.w2c[:, :3, 3], state.w2c[:, :3, 3])
