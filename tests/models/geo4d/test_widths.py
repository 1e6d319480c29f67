"""Networks of fewer modalities: their channels, what they take of a wider one, and what they predict."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.config import Geo4DConfig, full
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.widths import MODALITIES, modalities_of, take_channels, with_modalities
from geo4d.types import Window


@pytest.mark.parametrize(
    ("name", "groups"), [("points", 1), ("points+rays", 3), ("all", 4)], ids=["points", "rays", "all"]
)
def test_a_network_has_the_channels_of_its_modalities_and_of_the_colour(name: str, groups: int) -> None:
    config = with_modalities(full(), MODALITIES[name])
    with torch.device("meta"):
        unet = UNet(config.unet)
    assert unet.conv_in.weight.shape == (320, 4 * groups + 4, 3, 3)
    assert unet.conv_out.weight.shape == (4 * groups, 320, 3, 3)
    assert modalities_of(config) == MODALITIES[name]
    assert Geo4DConfig.from_dict(config.to_dict()) == config
    assert (config == full()) == (name == "all")


def test_modalities_that_no_network_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"out of \(points; points, rays; .*got rays"):
        with_modalities(full(), ("rays",))
    with pytest.raises(CheckpointError, match=r"channels of rays .* those of points; start from a wider one"):
        with_modalities(with_modalities(full(), ("points",)), ("points", "rays"))
    with pytest.raises(CheckpointError, match=r"f: expected a UNet with 8 channels in and 4 out.*20 and 16"):
        modalities_of(replace(full(), latent_groups=("point_map",)), "f")
    for wrong in (("disparity",), ("point_map", "ray_moment"), ("point_map", "point_map"), ("flow",)):
        with pytest.raises(CheckpointError, match="expected latent groups out of"):
            modalities_of(replace(full(), latent_groups=wrong))


@pytest.mark.parametrize("order", [None, ("disparity", "ray_moment", "point_map", "ray_direction")])
@pytest.mark.parametrize("name", ["points", "points+rays"])
def test_a_narrowed_network_is_the_wide_one_without_input_of_the_others(
    tiny_config: Geo4DConfig, make_part: Callable[..., Any], order: tuple[str, ...] | None, name: str
) -> None:
    wide = tiny_config if order is None else replace(tiny_config, latent_groups=order)
    narrow = with_modalities(wide, MODALITIES[name])
    unet, small = make_part("unet", wide), UNet(narrow.unet).eval()
    small.load_state_dict(take_channels(unet.state_dict(), wide, narrow))
    torch.manual_seed(0)
    groups = {group: torch.randn(1, 4, 2, 8, 8) for group in narrow.latent_groups}
    colour, context = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 77 + 16, 24)
    nothing = torch.zeros(1, 4, 2, 8, 8)
    rest = (torch.tensor([400.0]), context, torch.tensor([24.0]))
    with torch.no_grad():
        found = small(torch.cat([*groups.values(), colour], 1), *rest)
        seen = torch.cat([*(groups.get(group, nothing) for group in wide.latent_groups), colour], 1)
        expected = dict(zip(wide.latent_groups, unet(seen, *rest).split(4, 1), strict=True))
    torch.testing.assert_close(
        found, torch.cat([expected[group] for group in narrow.latent_groups], 1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", list(MODALITIES))
def test_a_predictor_gives_what_its_network_predicts(
    tiny_config: Geo4DConfig,
    make_predictor: Callable[..., Geo4DPredictor],
    make_window: Callable[..., Window],
    name: str,
) -> None:
    config = with_modalities(tiny_config, MODALITIES[name])
    predictor = make_predictor(config, num_steps=1)
    widths: list[int] = []
    predictor.unet.register_forward_pre_hook(lambda _, given: widths.append(given[0].shape[1]))
    found = predictor.predict(make_window(num_frames=3), seed=0)
    assert widths == [config.unet.in_channels]
    assert found.point_map is not None
    assert (found.ray_map is not None) == (found.ray_c2w is not None) == ("rays" in MODALITIES[name])
    assert (found.disparity is not None) == ("disparity" in MODALITIES[name])
    described = {
        "points": "points of",
        "points+rays": "points and rays of",
        "all": "points, rays and disparity of",
    }
    assert f"Geo4D: {described[name]} 16 frames" in predictor.info.description
