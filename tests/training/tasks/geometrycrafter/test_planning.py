"""What is planned is what the networks hold."""

from dataclasses import asdict, replace

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
from geo4d.training.tasks.geometrycrafter.networks import choose_trained
from geo4d.training.tasks.geometrycrafter.planning import count_parameters, plan
from geo4d.training.tasks.geometrycrafter.presets import find_stage


def test_a_plan_counts_the_network_of_its_variant_and_grows_with_the_window() -> None:
    preset, stage = find_stage("smallest", "unet")
    for variant in ("diff", "determ"):
        unet = FrameTokenUNet(**asdict(preset.sizes.unet_for(variant)))
        need = plan(preset, stage, "unet", variant=variant, micro_batch=1, processes=1).rows[0][1]
        choose_trained(unet, temporal_only=stage.temporal_only)
        assert need.trained == sum(p.numel() for p in unet.parameters() if p.requires_grad)
    longer = replace(stage, cut=replace(stage.cut, frames=(1, 2 * stage.cut.frames[1])))
    long = plan(preset, longer, "unet", variant="determ", micro_batch=1, processes=1).rows[0][1]
    assert long.activations > need.activations


def test_the_picture_coder_is_frozen_beside_the_point_map_coder() -> None:
    preset, stage = find_stage("smallest", "maps")
    need = plan(preset, stage, "maps", variant="diff", micro_batch=1, processes=1).rows[0][1]
    vae = PointMapVAE(preset.sizes.point_map_vae)
    assert need.trained == sum(p.numel() for p in vae.parameters())
    assert need.frozen >= count_parameters(lambda: ImageVAE(preset.sizes.image_vae, with_decoder=True))


def test_recomputing_the_point_map_coder_is_planned() -> None:
    preset, stage = find_stage("smallest", "maps-video")
    rows = dict(plan(preset, stage, "maps-video", variant="diff", micro_batch=1, processes=1).rows)
    assert rows["activations recomputed"].activations < 0.8 * rows["activations kept"].activations
