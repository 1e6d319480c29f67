from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.config import small
from geo4d.models.geo4d.pipeline import load
from geo4d.training.dynamicrafter import dynamicrafter_table
from geo4d.training.tasks.geo4d.networks import FolderPlan, fresh_networks, load_networks
from geo4d.training.tasks.geo4d.presets import smallest_config
from tests.support.depths import as_window

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
    with pytest.raises(CheckpointError, match=r"trained up to points; go on from it .*--modalities points"):
        load(weights=folder, device="cpu")


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "w")
    shard = next(folder.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="recorded"):
        load_networks(folder, smallest_config())


def test_a_folder_is_narrowed_to_some_modalities_and_never_widened(tmp_path: Path) -> None:
    wide = load_networks(written(tmp_path / "w"), smallest_config())
    assert wide.trained == ("points", "rays", "disparity")
    found = load_networks(tmp_path / "w", smallest_config(), ("points",))
    assert found.config.latent_groups == ("point_map",)
    theirs, ours = wide.unet.state_dict(), found.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["conv_in.weight"], theirs["conv_in.weight"][:, [0, 1, 2, 3, 16, 17, 18, 19]])
    assert torch.equal(ours["conv_out.weight"], theirs["conv_out.weight"][:4])
    convolutions = {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - convolutions)
    assert all(parameter.dtype == torch.float32 for parameter in found.unet.parameters())
    # It has never been without the others, so it predicts nothing before it is trained.
    assert found.trained == ()
    FolderPlan(found, {"stage": "s", "stages": ["s"]}, ("points",)).write(tmp_path / "n", {})
    with pytest.raises(
        CheckpointError, match=r"channels of rays, disparity .*those of points; start from a wider"
    ):
        load_networks(tmp_path / "n", smallest_config(), ("points", "rays", "disparity"))
    # Trained on points alone, with the other channels empty, it predicts what it did.
    masked = load_networks(written(tmp_path / "m", ("points",)), smallest_config(), ("points",))
    assert masked.trained == ("points",)


def test_a_folder_of_points_alone_says_so_and_is_a_predictor(tmp_path: Path) -> None:
    networks = fresh_networks(smallest_config(), ("points",))
    plan = FolderPlan(networks, {"stage": "s", "stages": ["s"]}, ("points",), {"height": 64, "width": 64})
    plan.write(tmp_path / "p", {})
    predictor = load(weights=tmp_path / "p", device="cpu", num_steps=1)
    found = predictor.predict(as_window(torch.rand(2, 64, 64, 3)), seed=0)
    assert found.point_map is not None
    assert (found.disparity, found.ray_map, found.ray_c2w) == (None, None, None)
    replace(plan, modalities=("points", "rays")).write(tmp_path / "wrong", {})
    with pytest.raises(
        CheckpointError, match=r"expected modalities out of points, .*states \['points', 'rays'\]"
    ):
        load(weights=tmp_path / "wrong", device="cpu")
    replace(plan, modalities=()).write(tmp_path / "none", {})
    with pytest.raises(CheckpointError, match=r"trained up to none of them; .* the stage 'points'$"):
        load(weights=tmp_path / "none", device="cpu")


def test_a_published_checkpoint_starts_a_network_of_points_alone(tmp_path: Path) -> None:
    config = small()
    state = {name: 0.02 * torch.randn(key.shape) for name, key in dynamicrafter_table(config).items()}
    save_file(state, tmp_path / "start.safetensors")
    found = load_networks(tmp_path / "start.safetensors", config, ("points",))
    first = state["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(found.unet.conv_in.weight, first)
    assert found.config.latent_groups == ("point_map",)
    assert found.trained == ()
