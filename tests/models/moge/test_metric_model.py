"""MoGe-2 against recorded outputs of the authors' code on the same made-up weights."""

import copy

import pytest
import torch

from geo4d.models.moge.config import MoGe2Config, MoGeOptions
from geo4d.models.moge.infer import infer_moge2
from geo4d.models.moge.metric_model import MoGe2
from tests.support.ruled import fill_ruled

RUNS = {
    "default": {},
    "fov60": {"fov_x_deg": 60.0},
    "noproj": {"force_projection": False, "fov_x_deg": 60.0},
    "level0": {"resolution_level": 0, "fov_x_deg": 60.0},
}


@pytest.fixture(scope="module")
def small(golden):
    return fill_ruled(MoGe2(MoGe2Config.from_published(golden("second")["config"])))


@pytest.fixture(scope="module")
def rgb(golden):
    return golden("second")["image_uint8"].float() / 255


def test_every_key_of_theirs_is_ours_but_for_the_normals(golden, small):
    theirs = {
        key: tuple(shape) for key, shape in golden("second")["keys"] if not key.startswith("normal_head.")
    }
    assert {key: tuple(value.shape) for key, value in small.state_dict().items()} == theirs


@pytest.mark.parametrize("num_tokens", [50, 117])
def test_the_forward_pass(golden, small, rgb, num_tokens):
    data = golden("second")
    with torch.no_grad():
        points, surface, metres = small(rgb.movedim(-1, 1), num_tokens)
    torch.testing.assert_close(points[:, ::4, ::4], data[f"forward{num_tokens}_points"], rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(surface[:, ::4, ::4], data[f"forward{num_tokens}_mask"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(metres, data[f"forward{num_tokens}_metric_scale"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("run", RUNS)
def test_recorded_maps(golden, small, rgb, run):
    data = golden("second")
    found = infer_moge2(small, rgb, MoGeOptions(solver="published", **RUNS[run]))
    scale = data[f"{run}_points"].abs().max()
    assert (found.points[:, ::4, ::4] - data[f"{run}_points"]).abs().max() < 2e-4 * scale
    assert torch.equal(found.mask[:, ::4, ::4], data[f"{run}_mask"])
    normalised = found.intrinsics / torch.tensor([rgb.shape[2], rgb.shape[1], 1.0])[:, None]
    assert (normalised - data[f"{run}_intrinsics"]).abs().max() < 1e-3
    assert torch.equal(found.depth, found.points[..., 2])


def test_pictures_do_not_influence_each_other(small, rgb):
    together = infer_moge2(small, rgb, MoGeOptions(batch=2, fov_x_deg=60.0))
    alone = infer_moge2(small, rgb, MoGeOptions(batch=1, fov_x_deg=60.0))
    torch.testing.assert_close(together.points, alone.points, rtol=1e-3, atol=1e-3)


def test_bfloat16_stays_close(small, rgb):
    options = MoGeOptions(fov_x_deg=60.0)
    reference = infer_moge2(small, rgb, options)
    found = infer_moge2(copy.deepcopy(small).cast(torch.bfloat16), rgb, options)
    difference = (found.depth / reference.depth).log().abs().median()
    assert 0 < difference < 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale_head": ...}, "scale_head missing"),
        ({"remap_output": "sinh"}, "expected remap_output = 'exp', got 'sinh'"),
        ({"encoder": {"backbone": "resnet", "intermediate_layers": 4, "dim_out": 8}}, "got 'resnet'"),
    ],
)
def test_other_networks_are_told(golden, change, says):
    published = {**golden("second")["config"], **change}
    published = {key: value for key, value in published.items() if value is not ...}
    with pytest.raises(ValueError, match=says):
        MoGe2Config.from_published(published)


def test_the_last_layers_by_their_number(golden):
    published = golden("second")["config"]
    encoder = {**published["encoder"], "intermediate_layers": 4}
    assert MoGe2Config.from_published({**published, "encoder": encoder}).layers == (8, 9, 10, 11)
