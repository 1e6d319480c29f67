import pytest
import torch

from geo4d.fusion.register import Registration, disagreeing_windows, register_windows, robust_similarity
from geo4d.fusion.samples import Trajectory, take_samples
from geo4d.fusion.start_cameras import fill_missing_cameras
from geo4d.fusion.start_focal import fit_focals
from geo4d.fusion.start_maps import fit_disparities, fit_trajectories
from geo4d.geometry.poses import rigid, similarity, so3_exp, transform


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("known", [False, True])
def test_focal_and_shift(known):
    offset = 30 * draw(2, 2, 300).clamp(-1.5, 1.5)
    depth = 2 + draw(2, 300, seed=1).abs()
    focal = torch.tensor([55.0, 80.0]).double()
    xy = depth[:, None] * offset / focal[:, None, None]
    shift = torch.tensor([0.7, 0.2]).double()
    points = torch.cat([xy, (depth - shift[:, None])[:, None]], 1)
    points[:, :, :20] += draw(2, 3, 20, seed=2)  # outliers
    weight = torch.ones(2, 300)
    weight[:, 290:] = 0
    fits = fit_focals(
        points.float(),
        offset.float(),
        weight,
        shift if known else torch.full((2,), torch.nan).double(),
        limits=(10.0, 500.0),
    )
    assert torch.allclose(fits.focal, focal, rtol=0.01)
    assert torch.allclose(fits.shift, shift, atol=0.03)


def test_focal_of_a_flat_scene_stays_in_its_limits():
    offset = 30 * draw(1, 2, 200)
    points = torch.cat([offset / 60, torch.ones(1, 1, 200).double()], 1)
    fits = fit_focals(
        points.float(),
        offset.float(),
        torch.ones(1, 200),
        torch.full((1,), torch.nan).double(),
        limits=(20.0, 400.0),
    )
    assert 20 <= float(fits.focal) <= 400
    empty = fit_focals(
        points.float(),
        offset.float(),
        torch.zeros(1, 200),
        torch.full((1,), torch.nan).double(),
        limits=(20.0, 400.0),
    )
    assert torch.isnan(empty.focal).all()


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


def test_disparities_by_least_absolute_deviations(make_wall):
    wall = make_wall(num_frames=12, noise=0.0)
    wall.predictions[0].disparity[:, :, :6] = 0.9  # a share of the pixels is wrong
    samples = take_samples(
        wall.predictions, num_frames=12, size=None, num_samples=10**6, weight_limit=10, min_disparity=0.05
    )
    depth = wall.depth.flatten(1).float()
    usable = samples.disparity_mask > 0
    fits = fit_disparities(samples, depth, usable)
    clean = wall.predictions[1].disparity[0, 0, 20:].double()
    aligned = fits.scale[1] * clean + fits.shift[1]
    assert torch.allclose(aligned, 1 / wall.depth[4, 0, 20:], rtol=1e-3)
    clean = wall.predictions[0].disparity[0, 0, 20:].double()
    assert torch.allclose(fits.scale[0] * clean + fits.shift[0], 1 / wall.depth[0, 0, 20:], rtol=2e-2)
    assert float(fits.share[1]) == 1
    nothing = fit_disparities(samples, depth, torch.zeros_like(usable))
    assert nothing.scale.tolist() == [1.0, 1.0]
    assert torch.isinf(nothing.error).all()


def test_trajectories_of_any_length_are_aligned():
    c2w = rigid(so3_exp(0.3 * draw(20, 3)), draw(20, 3, seed=1))
    tracks = []
    for start, count in ((0, 8), (5, 8), (3, 12)):
        frames = torch.arange(start, start + count)
        turn = so3_exp(draw(1, 3, seed=start))[0]
        local = rigid(turn.T @ c2w[frames, :3, :3], (c2w[frames, :3, 3] - 1.0) @ turn / 2.5)
        tracks.append(Trajectory(frames, local, torch.ones(count).double(), 0))
    fits = fit_trajectories(tracks, c2w[:, :3, :3], c2w[:, :3, 3], torch.ones(3).double())
    assert torch.allclose(fits.scale, torch.full((3,), 2.5).double(), rtol=1e-4)
    assert torch.allclose(fits.translation, torch.ones(3, 3).double(), atol=1e-3)
    assert float(fits.rpe_rad.max()) < 1e-6
    still = Trajectory(torch.arange(4), torch.eye(4).double().repeat(4, 1, 1), torch.ones(4).double(), 0)
    alone = fit_trajectories(
        [still], c2w[:, :3, :3], torch.zeros(20, 3).double(), torch.tensor([0.7]).double()
    )
    assert float(alone.scale) == pytest.approx(0.7)


def test_missing_cameras_take_the_nearest():
    c2w = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    c2w[:, 0, 3] = torch.arange(6)
    known = torch.tensor([False, True, False, False, True, False])
    assert fill_missing_cameras(c2w, known)[:, 0, 3].tolist() == [1, 1, 1, 4, 4, 4]
    assert torch.equal(fill_missing_cameras(c2w, torch.zeros(6, dtype=torch.bool))[3], torch.eye(4).double())
