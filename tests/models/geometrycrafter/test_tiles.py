import itertools
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from geo4d.models.geometrycrafter.tiles import run_tiled, tile_starts


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(10, 4, 1), (17, 8, 2), (8, 8, 3), (5, 9, 2), (9, 8, 4)]
)
def test_tiles_cover_and_overlap(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + min(tile, length) == length
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))


def test_overlap_must_be_smaller_than_the_tile():
    with pytest.raises(ValueError, match="overlap"):
        tile_starts(10, 4, 4)


@pytest.mark.parametrize("scale", [Fraction(8), Fraction(1), Fraction(1, 4)])
def test_pointwise_network_is_exact(scale):
    def network(x):
        return F.interpolate(2 * x + 1, scale_factor=float(scale), mode="nearest")

    x = torch.rand(2, 3, 24, 36)
    torch.testing.assert_close(run_tiled(network, x, 16, 4, scale), network(x), atol=1e-6, rtol=1e-6)


def test_seams_of_a_local_network_are_smooth():
    def network(x):
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)

    x = torch.rand(1, 1, 20, 40).cumsum(-1)
    whole, tiled = network(x), run_tiled(network, x, 16, 8, Fraction(1))
    assert (tiled - whole).abs().max() < 0.1 * (x[..., 1:] - x[..., :-1]).abs().max()
