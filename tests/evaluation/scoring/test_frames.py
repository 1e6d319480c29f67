import torch

from geo4d.evaluation.protocols import geo4d
from geo4d.evaluation.score import score
from geo4d.evaluation.scoring.frames import resize_map
from tests.support.scored import truth


def test_maps_of_another_size_are_resized(plane):
    half = plane.depth.reshape(12, 12, 2, 16, 2).mean((2, 4))
    result = score(truth(plane, maps=half / 3, size=(12, 16)), plane, geo4d())
    assert result.metrics["coverage"] == 1
    assert result.metrics["abs_rel"] < 0.01


def test_resize_keeps_holes_and_values():
    values = torch.arange(48.0).reshape(6, 8)
    assert torch.equal(resize_map(values, (6, 8)), values)
    values[:, :4] = torch.nan
    large = resize_map(values, (12, 16))
    assert torch.isnan(large[:, :7]).all()
    assert torch.isfinite(large[:, 9:]).all()
    known = large[torch.isfinite(large)]
    assert known.min() >= 0
    assert known.max() <= 60
