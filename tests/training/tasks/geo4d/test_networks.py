from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.pipeline import load
from geo4d.training.recipes import smallest_config
from geo4d.training.tasks.geo4d.networks import FolderPlan, fresh_networks, load_networks

EVERYTHING = ("disparity", "points", "rays")


def written(folder: Path, modalities: tuple[str, ...] = EVERYTHING, scale: float | None = None) -> Path:
    torch.manual_seed(0)
    networks = fresh_networks(smallest_config())
    torch.nn.init.normal_(networks.point_vae.decoder.conv_in.weight)
    plan = FolderPlan(
        networks, {"stage": "s", "stages": ["r", "s"]}, modalities, {"height": 64, "width": 128}
    )
    plan.write(folder, {"unet": networks.unet}, scale)
    return folder


def test_a_written_folder_is_read_back_to_the_last_number_and_by_the_predictor(tmp_path: Path) -> None:
    folder = written(tmp_path / "w", scale=0.5)
    torch.manual_seed(0)
    drawn = fresh_networks(smallest_config())
    torch.nn.init.normal_(drawn.point_vae.decoder.conv_in.weight)
    back = load_networks(folder, smallest_config())
    assert back.before["stages"] == ["r", "s"]
    assert back.config == replace(drawn.config, latent_scale=0.5)
    for part in ("unet", "vae", "point_vae"):
        ours, theirs = (getattr(networks, part).state_dict() for networks in (drawn, back))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part
        assert ours.keys() == theirs.keys()
    predictor = load(weights=folder, device="cpu")
    assert predictor.size_for((480, 640)) == (64, 128)
    assert torch.equal(predictor.constants.text, drawn.constants.text)
    assert load(weights=folder, device="cpu", height=64, width=64).size_for((480, 640)) == (64, 64)


def test_a_network_that_predicts_a_part_is_no_predictor_yet(tmp_path: Path) -> None:
    folder = written(tmp_path / "w", ("points",))
    with pytest.raises(CheckpointError, match="trained up to points; go on from it"):
        load(weights=folder, device="cpu")


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "w")
    shard = next(folder.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="recorded"):
        load_networks(folder, smallest_config())
