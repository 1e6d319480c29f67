import pytest
import torch

from geo4d.fusion.pixels import PixelResiduals


def pixels_of(num_pixels: int, num_windows: int, with_disparity: bool, seed: int = 0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    depth = 1 + 2 * draw(num_pixels)
    return depth, PixelResiduals(
        ray_power=1 + draw(num_pixels),
        nearest=depth + 0.1 * (draw(num_windows, num_pixels) - 0.5),
        miss=0.01 * draw(num_windows, num_pixels),
        weight=draw(num_windows, num_pixels),
        aligned=1 / depth + 0.05 * (draw(num_windows, num_pixels) - 0.5) if with_disparity else None,
        disparity_weight=draw(num_windows, num_pixels) if with_disparity else None,
        total=lambda values: values.sum(0),
        spread=lambda values: values,
    )


@pytest.mark.parametrize("with_disparity", [False, True])
def test_steps_reach_the_brute_force_minimum(with_disparity):
    depth, pixels = pixels_of(200, 3, with_disparity)
    found = pixels.polished(depth.log(), 1e-4, 40).exp()
    grid = torch.linspace(0.8, 3.4, 6000, dtype=torch.float64)
    best = torch.stack([pixels.cost(d.expand(200)) for d in grid]).amin(0)
    assert float((pixels.cost(found) - best).max()) < 1e-3


def test_the_step_follows_the_slope_of_the_cost():
    depth, pixels = pixels_of(50, 3, True)
    log_depth = (1.05 * depth).log().requires_grad_()
    (slope,) = torch.autograd.grad(pixels.cost(log_depth.exp()).sum(), log_depth)
    step = pixels.newton_step(log_depth.detach(), 1e-9, largest=0.3) - log_depth.detach()
    assert bool((step * slope <= 1e-12).all())
    assert float(step.abs().max()) <= 0.3


def test_a_pixel_that_no_window_sees_keeps_its_depth():
    depth, pixels = pixels_of(4, 2, True)
    assert pixels.disparity_weight is not None
    pixels.weight[:, 1] = 0
    pixels.disparity_weight[:, 1] = 0
    found = pixels.polished(depth.log(), 1e-3, 5)
    torch.testing.assert_close(found[1], depth.log()[1])


def test_the_distance_is_that_of_points_in_space():
    g = torch.Generator().manual_seed(3)
    rays = torch.cat([torch.randn(2, 30, generator=g), torch.ones(1, 30)]).double()
    points = torch.randn(4, 3, 30, generator=g).double()
    depth = 1 + torch.rand(30, generator=g).double()
    power = (rays * rays).sum(0)
    nearest = (points * rays).sum(1) / power
    miss = (points - nearest[:, None] * rays).square().sum(1)
    pixels = PixelResiduals(
        power, nearest, miss, torch.ones(4, 30).double(), None, None, lambda v: v.sum(0), lambda v: v
    )
    torch.testing.assert_close(pixels.distance(depth), (depth * rays - points).norm(dim=1))
