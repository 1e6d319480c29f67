from dataclasses import replace
from pathlib import Path

import pytest

from geo4d.errors import CheckpointError
from geo4d.models.geometrycrafter.weights import check_system
from geo4d.models.store.identity import check_trained
from geo4d.models.trained import TRAINED
from geo4d.training.loop import train
from geo4d.training.tasks.geometrycrafter.denoising import Denoising
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.networks import (
    FrozenNetworks,
    load_image_encoder,
    load_image_vae,
    load_point_map_vae,
    load_unet,
)
from tests.support.trained import LOOP, batches, losses


def unet_task(start: Path) -> Denoising:
    frozen = FrozenNetworks(load_image_vae(start), load_image_encoder(start), load_point_map_vae(start))
    return Denoising(*load_unet(start, "diff"), frozen, "diff", FolderPlan(start, {"stage": "unet"}))


def test_an_interrupted_unet_stage_goes_on_exactly_and_leaves_a_model(start, order, tmp_path: Path) -> None:
    frames = batches(order, (1, 2), prior=True)
    train(unet_task(start), frames, LOOP, tmp_path / "whole", device="cpu")
    train(unet_task(start), frames, replace(LOOP, num_steps=2), tmp_path / "cut", device="cpu")
    train(unet_task(start), frames, LOOP, tmp_path / "cut", resume=True, device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    weights = tmp_path / "cut/weights"
    _, checked = check_system(weights, "diff")
    assert set(checked.compared) == {"recorded"}
    file = weights / "unet_diff/diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="recorded when it was trained"):
        check_system(weights, "diff")
    (weights / TRAINED).write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        check_trained(weights)
