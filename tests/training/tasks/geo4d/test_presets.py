"""The numbers of Geo4D's stages at every size."""

import pytest
import torch

from geo4d.models.geo4d.config import full
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE
from geo4d.training.tasks.geo4d.networks import fresh_networks
from geo4d.training.tasks.geo4d.presets import PRESETS, reduced_config, smallest_config
from geo4d.training.tasks.geo4d.tasks import _options


def test_reduced_is_smallest_for_longer() -> None:
    smallest, reduced = PRESETS["smallest"](), PRESETS["reduced"]()
    assert reduced.chain == smallest.chain
    assert reduced.fresh
    assert {name: stage.after for name, stage in reduced.stages.items()} == {
        name: stage.after for name, stage in smallest.stages.items()
    }
    for name, stage in reduced.stages.items():
        assert stage.loop.num_steps > 2 * smallest.stages[name].loop.num_steps


@pytest.mark.parametrize(("make", "downsampling"), [(smallest_config, 8), (reduced_config, 4)])
def test_sizes_fit_the_smallest_maps(make, downsampling) -> None:  # type: ignore[no-untyped-def]
    config = make()
    with torch.device("meta"):
        UNet(config.unet)
    assert config.vae.downsampling == downsampling
    # The narrowest latent, 64 pixels, can be halved at every level.
    assert 64 // 8 % 2 ** (len(config.unet.channel_mult) - 1) == 0


@pytest.mark.parametrize("make", [full, smallest_config, reduced_config])
def test_norms_join_several_channels(make) -> None:  # type: ignore[no-untyped-def]
    config = make()
    with torch.device("meta"):
        networks = [UNet(config.unet), VAE(config.vae)]
    norms = [m for network in networks for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert min(norm.num_channels // norm.num_groups for norm in norms) >= 4


@pytest.mark.parametrize(("preset", "clean"), [("full", None), ("smallest", True), ("reduced", True)])
def test_networks_that_begin_with_nothing_end_on_the_latent_they_were_taught(
    preset: str, clean: bool | None
) -> None:
    made = PRESETS[preset]()
    networks = fresh_networks(smallest_config())
    assert _options(made, made.stages["disparity"], networks).get("clean_end") is clean


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_light_decoder_enlarges_latents_as_the_codec_does(preset: str) -> None:
    made = PRESETS[preset]()
    assert 2 ** (len(made.light_decoder.widths) - 1) == made.geo4d.vae.downsampling
