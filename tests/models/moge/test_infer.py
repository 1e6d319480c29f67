import pytest
import torch

from geo4d.geometry.cameras import project
from geo4d.models.moge.config import MoGeConfig, MoGeOptions
from geo4d.models.moge.infer import focal_to_intrinsics, image_size, infer_moge


def test_points_project_onto_their_pixels(small_moge):
    found = infer_moge(small_moge, torch.rand(1, 72, 100, 3), MoGeOptions())
    pixels, _ = project(found.points.flatten(1, 2), found.intrinsics)
    y, x = torch.meshgrid(torch.arange(72) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    expected = torch.stack([x, y], -1).reshape(1, -1, 2)
    # Interpolating points is not interpolating rays, so inside the picture this holds to a fraction of a pixel.
    assert (pixels - expected).abs().median() < 0.05


@pytest.mark.parametrize("size", [(33, 47), (21, 300)])
def test_odd_and_narrow_pictures(size, small_moge):
    found = infer_moge(small_moge, torch.rand(1, *size, 3), MoGeOptions())
    assert found.points.shape == (1, *size, 3)
    assert torch.isfinite(found.points).all()


def test_nothing_seen_gives_a_defined_camera(small_moge):
    last = small_moge.head.output_block[1][2]
    bias = last.bias.clone()
    last.bias.data.fill_(-1e4)
    try:
        found = infer_moge(small_moge, torch.rand(1, 40, 60, 3), MoGeOptions())
    finally:
        last.bias.data.copy_(bias)
    assert not found.mask.any()
    assert torch.isfinite(found.points).all()
    torch.testing.assert_close(found.intrinsics, focal_to_intrinsics(torch.ones(1), (40, 60)))


def test_image_sizes():
    config = MoGeConfig()
    height, width = image_size((448, 768), config, MoGeOptions())
    assert abs(height * width - 500_000) < 2000
    assert abs(width / height - 768 / 448) < 0.01
    low = image_size((448, 768), config, MoGeOptions(resolution_level=0))
    assert abs(low[0] * low[1] - 250_000) < 2000
    assert min(image_size((4, 4000), config, MoGeOptions())) >= 14
