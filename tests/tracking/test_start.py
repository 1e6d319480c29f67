import math

import torch

from geo4d.geometry.poses import so3_exp
from geo4d.tracking.bundle import Observations, reprojection_error
from geo4d.tracking.solve import fit_cameras
from geo4d.tracking.start import area_of_points, fit_to_points, iter_starts, spread_points
from tests.tracking.test_bundle import problem
from tests.tracking.test_solve import path, simulated_tracks, trajectory_error


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


def test_area_counts_cells_not_points():
    uv = torch.cat([torch.rand(90, 2) * 5, torch.tensor([[100.0, 100.0], [0.0, 100.0], [100.0, 0.0]])])
    area = area_of_points(seen_once(uv), len(uv))
    torch.testing.assert_close(area[90:], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(area[:90].sum(), torch.tensor(1.0, dtype=torch.float64))


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
    start = next(
        iter_starts(
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
    )
    assert len(start.bundle.state.points) == 400
    assert float(reprojection_error(start.bundle.state, observations).median()) < 0.2
    assert abs(float(start.bundle.state.log_focal[0]) - math.log(400)) < 0.1
    assert start.static.double().mean() > 0.9


def test_a_rigid_mover_with_half_of_the_tracks_does_not_become_the_world():
    # Half of the points turn and drift together, in a small part of the picture: as points they are as good a world
    # as the background, but the background has the larger area.
    scene = path(num_frames=12)
    still = simulated_tracks(scene, num_points=220)
    g = torch.Generator().manual_seed(3)
    body = (torch.rand(220, 3, generator=g, dtype=torch.float64) - 0.5) * 0.7
    steps = torch.arange(12, dtype=torch.float64)
    spin = so3_exp(torch.stack([0.03 * steps, -0.05 * steps, 0 * steps], 1))
    centre = torch.stack([0.4 + 0.05 * steps, 0 * steps, 3 - 0.04 * steps], 1)
    world = (spin[:, None] @ body[..., None])[..., 0] + centre[:, None]
    camera = (torch.linalg.inv(scene.c2w)[:, None, :3, :3] @ world[..., None])[..., 0]
    camera += torch.linalg.inv(scene.c2w)[:, None, :3, 3]
    xy = (camera @ scene.intrinsics[0].double().T)[..., :2] / camera[..., 2:]
    xy += 0.15 * torch.randn(xy.shape, generator=g, dtype=torch.float64)
    n = still.num_tracks
    both = type(still)(
        torch.cat([still.track, n + torch.arange(220).repeat_interleave(12)]),
        torch.cat([still.frame, torch.arange(12).repeat(220)]),
        torch.cat([still.xy, xy.transpose(0, 1).reshape(-1, 2).float()]),
        12,
        still.size,
        still.starts_shot,
    )
    ate, turn = trajectory_error(fit_cameras(both), scene)
    assert ate < 0.02
    assert turn < 1.0
