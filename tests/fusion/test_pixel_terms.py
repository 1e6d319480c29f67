import pytest
import torch

from geo4d.fusion.pixel_terms import Optics, PixelTerms, Weights
from geo4d.fusion.samples import take_samples
from tests.support.objectives import random_variables


@pytest.fixture
def samples(make_wall):
    wall = make_wall(num_frames=12, size=(12, 16), noise=0.05)
    return take_samples(
        wall.predictions, num_frames=12, size=None, num_samples=40, weight_limit=10, min_disparity=0.05
    )


def terms(samples, first: int, last: int, *, disparity: float = 2.0, count: float = 7.0) -> PixelTerms:
    weights = Weights(
        torch.tensor([1.0, 0.5]).double(),
        torch.tensor([disparity, 0.0]).double(),
        torch.zeros(2).double(),
        0.0,
    )
    optics = Optics(torch.tensor([[8.0, 6.0]]).double().expand(12, 2), 1.2 * torch.ones(12).double())
    return PixelTerms.of(samples, optics, weights, count, first, last)


def test_ranges_hold_the_observations_of_their_frames(samples) -> None:
    parts = [terms(samples, 0, 5), terms(samples, 5, 9), terms(samples, 9, 12)]
    assert torch.equal(torch.cat([part.frame + part.first for part in parts]), samples.frame)
    assert torch.equal(torch.cat([part.points for part in parts]), samples.points)
    assert all(part.frame.min() >= 0 and part.frame.max() < part.last - part.first for part in parts)


def test_totals_and_spreads_go_between_frames_and_observations(samples) -> None:
    part = terms(samples, 3, 9)
    values = torch.arange(len(part.frame)).float()[:, None].expand(-1, 2)
    expected = torch.zeros(6, 2)
    for row, frame in enumerate(part.frame.tolist()):
        expected[frame] += values[row]
    assert torch.equal(part.total(values), expected)
    per_frame = torch.arange(6.0)
    assert torch.equal(part.spread(per_frame), per_frame[part.frame])


def test_a_view_is_what_the_cameras_see(samples) -> None:
    part = terms(samples, 3, 9)
    variables = random_variables(12, 2, 2, samples.pixels.shape[2])
    view = part.view(variables, 1e-3, num_polish=0)
    assert torch.equal(view.log_depth, variables.log_depth[3:9])
    o = len(part.frame) // 2
    n, window, p = int(part.frame[o]), int(part.window[o]), 5
    frame = n + 3
    focal = variables.log_focal[frame].exp()
    pixel = samples.pixels[frame, :, p].double()
    ray = torch.tensor([(pixel[0] - 8) / focal, (pixel[1] - 6) / (1.2 * focal), 1.0]).double()
    torch.testing.assert_close(view.rays[n, :, p].double(), ray, atol=1e-6, rtol=1e-6)
    x = samples.points[o + int((samples.frame < 3).sum()), :, p].double()
    world = variables.window_scale[window] * variables.window_rotation[window] @ x
    world = world + variables.window_translation[window]
    q = variables.rotation[frame].T @ (world - variables.centre[frame])
    torch.testing.assert_close(view.points[o, :, p].double(), q, atol=1e-5, rtol=1e-5)
    nearest = (q @ ray) / (ray @ ray)
    assert float(view.nearest[o, p]) == pytest.approx(float(nearest), rel=1e-4)
    depth = variables.log_depth[frame, p].double().exp()
    assert float(view.distance[o, p]) == pytest.approx(float((depth * ray - q).norm()), rel=1e-3)


def test_values_are_weighted_sums(samples) -> None:
    part = terms(samples, 0, 12)
    variables = random_variables(12, 2, 2, samples.pixels.shape[2])
    view = part.view(variables, 1e-3, num_polish=0)
    points, disparity = part.values(variables, view)
    weight = samples.weight * torch.tensor([1.0, 0.5])[samples.window][:, None]
    assert points == pytest.approx(float((weight * view.distance).double().sum()) / 7, rel=1e-5)
    first = samples.window == 0  # the second window's disparity has no weight
    aligned = variables.disparity_scale[0] * samples.disparity[first].double() + variables.disparity_shift[0]
    residual = (1 / view.log_depth.double().exp())[samples.frame[first]] - aligned
    expected = 2 * float((samples.disparity_mask[first] * residual.abs()).sum()) / 7
    assert disparity == pytest.approx(expected, rel=1e-4)


def test_without_weight_no_disparity_is_looked_at(samples) -> None:
    part = terms(samples, 0, 12, disparity=0.0)
    variables = random_variables(12, 2, 2, samples.pixels.shape[2])
    view = part.view(variables, 1e-3, num_polish=0)
    assert view.difference is None
    assert part.disparity_terms(variables) == (None, None)
    assert part.values(variables, view)[1] == 0


def test_polished_depths_cost_less_everywhere(samples) -> None:
    part = terms(samples, 0, 12, disparity=0.0)
    variables = random_variables(12, 2, 2, samples.pixels.shape[2])
    raw, polished = (part.view(variables, 1e-4, num_polish=n) for n in (0, 8))
    cost = [part.pixel_cost(variables, view, view.log_depth.exp()) for view in (raw, polished)]
    assert (cost[1] <= cost[0] + 1e-4).all()
    assert cost[1].sum() < 0.9 * cost[0].sum()
