import pytest
import torch

from geo4d.fusion.register import Registration, disagreeing_windows, register_windows, robust_similarity
from geo4d.fusion.samples import take_samples
from geo4d.geometry.poses import similarity, so3_exp, transform
from tests.support.drawn import draw


def test_robust_similarity_ignores_a_third_of_wrong_points():
    source = draw(3, 120, 3)
    world = similarity(
        torch.tensor([0.5, 2.0, 1.0]).double(), so3_exp(draw(3, 3, seed=1)), draw(3, 3, seed=2)
    )
    target = transform(world, source)
    target[:, :40] += 3 * draw(3, 40, 3, seed=3)
    found, median = robust_similarity(source, target, torch.ones(3, 120).double(), num_iterations=30)
    assert torch.allclose(found, world, atol=0.02)
    assert float(median.max()) < 0.02


def test_windows_are_registered(make_wall):
    wall = make_wall(num_frames=20, noise=0.001)
    samples = take_samples(
        wall.predictions, num_frames=20, size=None, num_samples=300, weight_limit=10, min_disparity=0.05
    )
    registration = register_windows(samples)
    assert registration.component.tolist() == [0, 0, 0, 0]
    # The same pixel of the same frame lands in one place, whatever the window.
    rows = torch.nonzero(samples.frame == 9)[:, 0]
    placed = transform(registration.world[samples.window[rows]], samples.points[rows].mT.double())
    assert float((placed[0] - placed[1]).norm(dim=1).median()) < 0.01


def edges(costs: dict[tuple[int, int], float], num_windows: int) -> Registration:
    first = torch.tensor([a for a, _ in costs], dtype=torch.long)
    second = torch.tensor([b for _, b in costs], dtype=torch.long)
    cost = torch.tensor(list(costs.values()), dtype=torch.float64)
    agreement = torch.full((num_windows,), torch.inf, dtype=torch.float64)
    for (a, b), value in costs.items():
        agreement[a], agreement[b] = min(agreement[a], value), min(agreement[b], value)
    world = torch.eye(4, dtype=torch.float64).repeat(num_windows, 1, 1)
    return Registration(world, torch.zeros(num_windows, dtype=torch.long), agreement, first, second, cost)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({(0, 1): 0.02, (1, 2): 0.02, (2, 3): 0.02}, []),
        ({(0, 1): 0.2, (1, 2): 0.2, (0, 2): 0.02}, [1]),
        # The neighbour of a bad window, seen by that one alone, is not bad for it.
        ({(0, 1): 0.2, (1, 2): 0.2, (2, 3): 0.02, (3, 4): 0.02}, [1]),
        ({(0, 1): 0.2, (1, 2): 0.02, (2, 3): 0.02}, [0]),
        ({(0, 1): 0.3, (1, 2): 0.3, (0, 2): 0.3}, [0, 1, 2]),
        ({}, []),
    ],
)
def test_who_disagrees(costs, expected):
    num_windows = 1 + max((max(pair) for pair in costs), default=1)
    bad = disagreeing_windows(edges(costs, num_windows), ratio=2.5, floor=2e-3, ceiling=0.15)
    assert torch.nonzero(bad)[:, 0].tolist() == expected
