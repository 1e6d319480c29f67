import json

import pytest

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.config import PRESETS, Geo4DConfig, UNetConfig, full, unet_from_published


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name: str) -> None:
    config = PRESETS[name]()
    assert Geo4DConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(nonsense=1),
        lambda d: d["unet"].update(nonsense=1),
        lambda d: d.update(unet={"model_channels": 32, "colour": "red"}),
    ],
)
def test_entries_that_nobody_knows_are_refused(change) -> None:
    values = full().to_dict()
    change(values)
    with pytest.raises(CheckpointError, match="expected the config of a Geo4D network"):
        Geo4DConfig.from_dict(values)


def test_four_groups_of_latent_channels_make_the_output() -> None:
    config = full()
    assert config.unet.out_channels == len(config.latent_groups) * config.vae.latent_channels
    assert config.unet.in_channels == config.unet.out_channels + config.vae.latent_channels  # and the colour


def test_published_options_that_change_the_structure_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"expected temporal_conv = True in the .*, got False"):
        unet_from_published({"temporal_conv": False})
    with pytest.raises(CheckpointError, match=r"unknown option colour = 'red'.*known: "):
        unet_from_published({"colour": "red"})


def test_published_options_that_matter_to_training_alone_are_passed_over() -> None:
    found = unet_from_published({"model_channels": 64, "dropout": 0.1, "use_checkpoint": True, "dims": 2})
    assert found.model_channels == 64
    assert isinstance(found, UNetConfig)
