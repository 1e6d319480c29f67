import pytest
import torch

from geo4d.geometry.cameras import project
from geo4d.models.moge.config import MoGeConfig, MoGeOptions
from geo4d.models.moge.infer import focal_to_intrinsics, image_size, infer_moge

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


def test_points_project_onto_their_pixels(small_moge):
    found = infer_moge(small_moge, torch.rand(1, 72, 100, 3), MoGeOptions())
    pixels, _ = project(found.points.flatten(1, 2), found.intrinsics)
    y, x = torch.meshgrid(torch.arange(72) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    expected = torch.stack([x, y], -1).reshape(1, -1, 2)
    # Interpolating points is not interpolating rays, so inside the picture this holds to a fraction of a pixel.
    assert (pixels - expected).abs().median() < 0.05


def test_pictures_do_not_influence_each_other(small_moge):
    rgb = torch.rand(3, 56, 70, 3)
    together = infer_moge(small_moge, rgb, MoGeOptions(batch=3))
    alone = infer_moge(small_moge, rgb, MoGeOptions(batch=1))
    torch.testing.assert_close(together.points, alone.points, atol=1e-4, rtol=1e-4)


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


def test_bfloat16_stays_close(golden, small_moge):
    rgb = golden("pinned")["image_uint8"].float().div(255).movedim(1, -1)
    options = MoGeOptions(fov_x_deg=60.0)
    reference = infer_moge(small_moge, rgb, options)
    import copy

    half = copy.deepcopy(small_moge).cast(torch.bfloat16)
    found = infer_moge(half, rgb, options)
    difference = (found.points - reference.points).norm(dim=-1) / reference.points.norm(dim=-1)
    assert 0 < difference.median() < 0.02


def test_image_sizes():
    config = MoGeConfig()
    height, width = image_size((448, 768), config, MoGeOptions())
    assert abs(height * width - 500_000) < 2000
    assert abs(width / height - 768 / 448) < 0.01
    low = image_size((448, 768), config, MoGeOptions(resolution_level=0))
    assert abs(low[0] * low[1] - 250_000) < 2000
    assert min(image_size((4, 4000), config, MoGeOptions())) >= 14


@pytest.mark.parametrize("wrong", [{"resolution_level": 10}, {"fov_x_deg": 180.0}, {"batch": 0}])
def test_wrong_options(wrong):
    with pytest.raises(ValueError, match="expected"):
        MoGeOptions(**wrong)


def test_unreleased_networks_are_refused():
    for wrong in ({"encoder": "resnet"}, {"split_head": False}):
        with pytest.raises(ValueError, match="expected"):
            MoGeConfig(**wrong)
    with pytest.raises(ValueError, match="scale_head"):
        MoGeConfig.from_published({"scale_head": True})
