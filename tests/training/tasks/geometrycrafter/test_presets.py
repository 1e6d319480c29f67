"""The numbers of the stages, and their order."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
from geo4d.training.tasks.geometrycrafter.networks import fresh_unet
from geo4d.training.tasks.geometrycrafter.presets import PRESETS, find_chain, find_stage


def test_the_full_recipe_is_the_published_one() -> None:
    stages = PRESETS["full"]().stages
    said = {
        name: (s.loop.learning_rate, s.loop.batch, s.cut.frames, s.temporal_only, s.cut.size, s.clips)
        for name, s in stages.items()
        if name in PRESETS["full"]().chain
    }
    assert said == {
        "maps": (1e-4, 64, (1, 1), False, (320, 640), "all"),
        "maps-video": (1e-4, 8, (1, 8), True, (320, 640), "video"),
        "unet": (1e-5, 8, (1, 25), False, (320, 640), "video"),
        "unet-long": (1e-5, 8, (1, 110), True, (320, 640), "video"),
    }
    assert [stages[name].loop.num_steps for name in ("maps", "maps-video")] == [40_000, 20_000]
    assert (stages["unet"].noise.mean, stages["unet"].noise.deviation) == (0.7, 1.6)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_stage_starts_from_the_one_before(preset: str) -> None:
    made = PRESETS[preset]()
    assert [made.stages[name].after for name in made.chain] == [None, *made.chain[:-1]]
    others = {name: stage.after for name, stage in made.stages.items() if name not in made.chain}
    assert others == {"light-decoder": "maps-video", "one-step": "unet-long"}


def test_reduced_is_smallest_for_longer() -> None:
    smallest, made = PRESETS["smallest"](), PRESETS["reduced"]()
    assert made.chain == smallest.chain
    assert made.fresh
    for name, stage in made.stages.items():
        assert stage.loop.num_steps > 2 * smallest.stages[name].loop.num_steps
        assert stage.cut.frames[1] <= made.clip_frames


def test_names_are_looked_up_or_listed() -> None:
    assert find_chain("full") == ["maps", "maps-video", "unet", "unet-long"]
    preset, stage = find_stage("full", "unet")
    assert stage == preset.stages["unet"]
    with pytest.raises(ValueError, match="out of smallest, reduced, full"):
        find_stage("tiny", "maps")
    with pytest.raises(ValueError, match="out of maps, maps-video, unet, unet-long"):
        find_stage("full", "pictures")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_norms_join_several_channels(preset: str) -> None:
    sizes = PRESETS[preset]().sizes
    with torch.device("meta"):
        networks = [
            ImageVAE(sizes.image_vae, with_decoder=True),
            PointMapVAE(sizes.point_map_vae),
            fresh_unet(sizes.unet_for("diff")),
        ]
    norms = [m for network in networks for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    # The heads of the published point-map decoder are 64 channels wide.
    assert min(norm.num_channels // norm.num_groups for norm in norms) >= (2 if preset == "full" else 4)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_light_decoder_enlarges_latents_as_the_autoencoder_does(preset: str) -> None:
    sizes = PRESETS[preset]().sizes
    assert (
        2 ** (len(sizes.light_decoder.widths) - 1)
        == sizes.image_vae.reduction
        == sizes.point_map_vae.reduction
    )
