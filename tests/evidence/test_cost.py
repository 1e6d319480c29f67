import torch

from geo4d.evidence.cost import SweepConfig, _box, _correlate, _patch_statistics
from geo4d.evidence.sweep import _shrunk


def test_a_shrunk_projection_names_the_same_point():
    generator = torch.Generator().manual_seed(0)
    projections = torch.rand(1, 2, 3, 4, generator=generator, dtype=torch.float64) + torch.eye(3, 4)
    grey, smaller = _shrunk(torch.rand(3, 7, 10), projections, 2)
    assert grey.shape == (3, 4, 5)
    at = torch.tensor([3.0, 5.0, 1.0, 0.4], dtype=torch.float64)  # pixel 3, 5 at disparity 0.4
    half = torch.tensor([1.5, 2.5, 1.0, 0.4], dtype=torch.float64)
    full, small = projections @ at, smaller @ half
    torch.testing.assert_close(full[..., :2] / full[..., 2:], 2 * small[..., :2] / small[..., 2:])


def test_box_is_the_mean_over_the_part_inside():
    maps = torch.rand(2, 7, 9)
    expected = torch.nn.functional.avg_pool2d(maps[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    torch.testing.assert_close(_box(maps, 5), expected)


def test_correlation_of_a_picture_with_itself_is_one():
    config = SweepConfig(texture_floor=1e-6)
    picture = torch.rand(12, 14)
    ys, xs = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(14) + 0.5, indexing="ij")
    base = torch.stack([xs / 7 - 1, ys / 6 - 1, torch.ones_like(xs)]).reshape(3, -1)
    mean, spread = _patch_statistics(picture, config)
    score = _correlate(picture, base, torch.zeros(3), torch.ones(2, 1), picture, mean, spread, config)
    torch.testing.assert_close(score, torch.ones_like(score), atol=2e-3, rtol=0)
