from dataclasses import dataclass

import torch
from torch import nn

from geo4d.formats.hashes import sha256_of
from geo4d.models.trained import read_trained
from geo4d.training.tasks.geometrycrafter.folder import COMPONENTS, WEIGHTS, FolderPlan, write_component


@dataclass(frozen=True)
class Sizes:
    width: int = 3
    names: tuple[str, ...] = ("a", "b")


def test_a_network_is_its_config_and_its_tensors(tmp_path) -> None:
    import json

    from safetensors.torch import load_file

    network = nn.Linear(3, 2)
    write_component(tmp_path / "vae", network, Sizes())
    assert json.loads((tmp_path / "vae/config.json").read_text()) == {"width": 3, "names": ["a", "b"]}
    tensors = load_file(str(tmp_path / "vae" / WEIGHTS))
    assert set(tensors) == {"weight", "bias"}
    assert torch.equal(tensors["weight"], network.weight)


def test_tensors_that_share_memory_or_are_turned_are_written_as_they_look(tmp_path) -> None:
    from safetensors.torch import load_file

    network = nn.Module()
    network.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
    write_component(tmp_path / "x", network, Sizes())
    assert torch.equal(load_file(str(tmp_path / "x" / WEIGHTS))["turned"], network.turned)


def test_the_other_networks_of_the_stage_before_are_taken_over(tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    FolderPlan(None, {"stage": "unet"}).write(
        first, {name: (nn.Linear(2, 2), Sizes()) for name in COMPONENTS[:2]}
    )
    changed = COMPONENTS[0]
    FolderPlan(first, {"stage": "unet"}).write(second, {changed: (nn.Linear(2, 2), Sizes(width=9))})
    for name in COMPONENTS[:2]:
        same = sha256_of(first / name / WEIGHTS) == sha256_of(second / name / WEIGHTS)
        assert same == (name != changed)
    record = read_trained(second)
    assert record is not None
    assert record["family"] == "geometrycrafter"
    assert record["stage"] == "unet"
    assert len(record["sha256"]) == 4
    # What comes later changes nothing in the folder before.
    assert '"width": 3' in (first / changed / "config.json").read_text()
