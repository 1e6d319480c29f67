import pytest
import torch

from geo4d.models.moge.config import MoGeOptions
from geo4d.models.moge.infer import infer_moge

RUNS = {
    "default": {},
    "fov60": {"fov_x_deg": 60.0},
    "noproj": {"force_projection": False},
    "level0": {"resolution_level": 0},
}


@pytest.mark.parametrize("behaviour", ["pinned", "newest"])
@pytest.mark.parametrize("run", RUNS)
def test_recorded_maps(behaviour, run, golden, small_moge):
    data = golden(behaviour)
    rgb = golden("pinned")["image_uint8"].float().div(255).movedim(1, -1)
    options = MoGeOptions(behaviour=behaviour, solver="published", **RUNS[run])
    found = infer_moge(small_moge, rgb, options)
    height, width = rgb.shape[1:3]
    normalised = found.intrinsics / torch.tensor([width, height, 1.0])[:, None]
    assert (found.points[:, ::4, ::4] - data[f"{run}_points_every_4th"]).abs().max() < 1e-4
    assert (normalised - data[f"{run}_intrinsics"]).abs().max() < 1e-4
    assert torch.equal(found.mask[:, ::4, ::4], data[f"{run}_mask_every_4th"])
    converged = infer_moge(small_moge, rgb, MoGeOptions(behaviour=behaviour, **RUNS[run]))
    difference = (converged.points - found.points).norm(dim=-1) / found.points.norm(dim=-1)
    assert difference.max() < 3e-3


def test_pictures_do_not_influence_each_other(small_moge):
    rgb = torch.rand(3, 56, 70, 3)
    together = infer_moge(small_moge, rgb, MoGeOptions(batch=3))
    alone = infer_moge(small_moge, rgb, MoGeOptions(batch=1))
    torch.testing.assert_close(together.points, alone.points, atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_close(golden, small_moge):
    rgb = golden("pinned")["image_uint8"].float().div(255).movedim(1, -1)
    options = MoGeOptions(fov_x_deg=60.0)
    reference = infer_moge(small_moge, rgb, options)
    import copy

    half = copy.deepcopy(small_moge).cast(torch.bfloat16)
    found = infer_moge(half, rgb, options)
    difference = (found.points - reference.points).norm(dim=-1) / reference.points.norm(dim=-1)
    assert 0 < difference.median() < 0.02
