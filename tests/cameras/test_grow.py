from dataclasses import replace

import pytest
import torch

from geo4d.cameras.grow import grow, outward
from geo4d.cameras.observations import Observations
from geo4d.cameras.terms import BundleState
from geo4d.geometry.poses import inverse, rigid, so3_exp
from tests.support.adjustments import centre_error, problem


def test_cameras_come_back_from_a_run_of_solved_ones():
    truth, observations = problem(num_cameras=12, num_points=400, span=6, noise=0.05)
    w2c = torch.eye(4, dtype=torch.float64).repeat(12, 1, 1)
    w2c[4:8] = truth.w2c[4:8]
    solved = torch.zeros(12, dtype=torch.bool)
    solved[4:8] = True
    start = replace(truth, w2c=w2c)
    grown = grow(start, observations, solved, 0.05, outward((4, 8), 0, 12))
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


def wall(num_cameras: int, noise: float, seed: int) -> tuple[torch.Tensor, Observations]:
    """Cameras that pass along a wall, 160x96 pictures of focal length 140, and tracks that last 3 to 13 of them."""
    g = torch.Generator().manual_seed(seed)
    s = torch.arange(num_cameras, dtype=torch.float64)
    turn = torch.stack([0.02 * (0.11 * s).sin(), 0.2 * (0.07 * s).sin(), 0.02 * (0.17 * s).sin()], 1)
    place = torch.stack([0.13 * s, 0.3 * (0.13 * s).sin(), 0.5 * (0.05 * s).sin()], 1)
    w2c = inverse(rigid(so3_exp(turn), place))
    length = 0.13 * num_cameras + 10
    size = torch.tensor([length, 5.0, 0.3], dtype=torch.float64)
    points = torch.rand(int(8 * length), 3, generator=g, dtype=torch.float64) * size
    points += torch.tensor([-5.0, -2.5, 6.0])
    seen = points @ w2c[:, :3, :3].mT + w2c[:, None, :3, 3]
    uv = 140 * seen[..., :2] / seen[..., 2:]
    inside = (uv[..., 0].abs() < 80) & (uv[..., 1].abs() < 48)
    camera, point = inside.nonzero(as_tuple=True)
    uv = uv[inside] + noise * torch.randn(len(camera), 2, generator=g, dtype=torch.float64)
    lasts = torch.randint(3, 14, (len(points),), generator=g)
    _, track = (point * num_cameras + camera // lasts[point]).unique(return_inverse=True)
    return w2c, Observations(camera, track, uv, torch.ones(len(camera), dtype=torch.float64))


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
