import torch

from geo4d.cameras.observations import (
    Observations,
    mean_per_point,
    observation_area,
    point_area,
    shared_points,
    spread_points,
)
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


def test_area_counts_cells_not_points():
    uv = torch.cat([torch.rand(90, 2) * 5, torch.tensor([[100.0, 100.0], [0.0, 100.0], [100.0, 0.0]])])
    zeros, ones = torch.zeros(93, dtype=torch.long), torch.ones(93, dtype=torch.float64)
    area = observation_area(Observations(zeros, torch.arange(93), uv.double(), ones))
    torch.testing.assert_close(area[90:], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(area[:90].sum(), torch.tensor(1.0, dtype=torch.float64))


def test_the_area_of_points_is_that_of_what_was_seen():
    _, observations = problem(num_points=50)
    torch.testing.assert_close(point_area(observations, 50).sum(), observation_area(observations).sum())


def test_shared_points_are_the_same_points():
    _, observations = problem(num_cameras=5, num_points=60, span=3)
    ids, first, second = shared_points(observations, 1, 2)
    assert len(ids) > 5
    for point, a, b in zip(ids.tolist(), first, second, strict=True):
        rows = (observations.point == point) & ((observations.camera == 1) | (observations.camera == 2))
        torch.testing.assert_close(observations.uv[rows], torch.stack([a, b]))
    assert len(shared_points(observations, 0, 4)[0]) == 0  # no track is so long


def test_means_count_every_observation_once():
    observations = Observations(
        torch.tensor([0, 1, 0]), torch.tensor([0, 0, 2]), torch.zeros(3, 2).double(), torch.ones(3).double()
    )
    mean = mean_per_point(torch.tensor([1.0, 3.0, 5.0]), observations)
    assert mean.tolist() == [2.0, 0.0, 5.0]
