import pytest
import torch

from geo4d.fusion import upsample_depth


def two_halves(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth 2 left of a slanted edge and 5 right of it, and a picture that shows the edge."""
    height, width = size
    y = (torch.arange(height) + 0.5)[:, None] / height
    x = (torch.arange(width) + 0.5)[None] / width
    left = x < 0.4 + 0.2 * y
    return torch.where(left, 2.0, 5.0), torch.where(left[..., None], 0.2, 0.8).expand(
        height, width, 3
    ).contiguous()


def test_edges_follow_the_picture_and_surfaces_are_not_mixed():
    depth, low = two_halves((24, 32))
    truth, full = two_halves((96, 128))
    result = upsample_depth(depth, low, full)
    assert set(result.unique().round(decimals=4).tolist()) == {2.0, 5.0}
    assert float((result.round() == truth).float().mean()) > 0.995
    nearest = torch.nn.functional.interpolate(depth[None, None], size=(96, 128), mode="nearest-exact")[0, 0]
    assert (result.round() != truth).sum() < 0.3 * (nearest != truth).sum()


def test_sky_and_invalid_pixels_stay_what_they_are():
    depth, low = two_halves((24, 32))
    _, full = two_halves((96, 128))
    depth = torch.where(depth == 5.0, torch.inf, depth)
    result = upsample_depth(depth, low, full)
    assert set(result.unique().tolist()) == {2.0, float("inf")}
    result = upsample_depth(torch.where(depth == 2.0, torch.nan, depth), low, full)
    assert torch.isnan(result[:, :20]).all()
    assert torch.isposinf(result[:, -20:]).all()


def test_the_strips_do_not_show():
    depth = 1 + torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    low = torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(1))
    full = torch.rand(61, 95, 3, generator=torch.Generator().manual_seed(2))
    strips = upsample_depth(depth, low, full, rows_at_once=7)
    assert torch.allclose(upsample_depth(depth, low, full), strips, rtol=1e-5)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="size of the depth"):
        upsample_depth(torch.ones(4, 5), torch.ones(5, 5, 3), torch.ones(8, 10, 3))
