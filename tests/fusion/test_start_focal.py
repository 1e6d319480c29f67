import pytest
import torch

from geo4d.fusion.start_focal import fit_focals
from tests.support.drawn import draw


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
