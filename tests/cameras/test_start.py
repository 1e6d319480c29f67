import math

import torch

from geo4d.cameras.observations import Observations, spread_points
from geo4d.cameras.start import find_start
from geo4d.cameras.terms import reprojection_error
from geo4d.cameras.two_views import fit_to_points
from tests.support.adjustments import problem


def seen_once(uv):
    """One camera that sees every point once."""
    n = len(uv)
    return Observations(
        torch.zeros(n, dtype=torch.long), torch.arange(n), uv.double(), torch.ones(n, dtype=torch.float64)
    )


def test_points_of_the_search_are_spread_however_dense_a_corner_is():
    g = torch.Generator().manual_seed(0)
    dense = torch.rand(900, 2, generator=g) * 10
    wide = torch.rand(100, 2, generator=g) * 300
    observations = seen_once(torch.cat([dense, wide]))
    chosen = spread_points(observations, 1000, 100)
    assert int(chosen.sum()) == 100
    assert int(chosen[900:].sum()) > 50
    assert bool(spread_points(observations, 1000, 2000).all())


def test_cameras_are_fitted_to_points_in_one_batch_and_others_stay():
    truth, observations = problem(num_cameras=6, num_points=60, span=6)
    start = truth.w2c.clone()
    start[2:5, :3, 3] += 0.05
    wanted = torch.tensor([False, False, True, True, False, False])
    everything = torch.ones(60, dtype=torch.bool)
    fitted = fit_to_points(observations, truth.points, everything, 400.0, 1e-3, start, wanted)
    torch.testing.assert_close(fitted[2:4], truth.w2c[2:4], atol=1e-6, rtol=0)
    assert torch.equal(fitted[4], start[4])


def test_the_race_on_few_points_finds_cameras_that_explain_all():
    _, observations = problem(num_cameras=8, num_points=400, span=6, noise=0.1)
    start = find_start(
        observations,
        8,
        400,
        width=640,
        pixel_error=0.25,
        focal=None,
        prior=(500.0, 0.4),
        prior_strength=2.0,
        search_points=100,
    )
    assert len(start.bundle.state.points) == 400
    assert float(reprojection_error(start.bundle.state, observations).median()) < 0.2
    assert abs(float(start.bundle.state.log_focal[0]) - math.log(400)) < 0.1
    assert start.static.double().mean() > 0.9
