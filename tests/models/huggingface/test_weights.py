import json
import pickle
from types import SimpleNamespace

import pytest
import torch

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.models.huggingface import weights

CARD = """---
license: apache-2.0
tags:
- depth
---
# A network
license: none
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No hub, and no store or cache of whoever runs this."""
    monkeypatch.setenv("GEO4D_MODELS", str(tmp_path / "store"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: pytest.fail("asked the hub"))


def test_a_folder_the_store_and_then_the_cache(tmp_path, monkeypatch):
    assert weights.find_folder(f"hf:{tmp_path}") == tmp_path
    with pytest.raises(CheckpointError, match="geo4d models pull hf:some/network"):
        weights.find_folder("hf:some/network")
    cached = tmp_path / "snapshot"
    cached.mkdir()
    for name in ("config.json", "model.safetensors"):
        (cached / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, local_files_only: str(cached))
    assert weights.find_folder("hf:some/network") == cached
    stored = weights.store_folder("hf:some/network")
    stored.mkdir(parents=True)
    (stored / "config.json").write_text("{}")
    assert weights.find_folder("hf:some/network") == stored == tmp_path / "store" / "hf" / "some--network"


@pytest.mark.parametrize("name", ["hf:", "hf:alone", "hf:a/b/c", "hf:../up", "hf:a/b?c"])
def test_a_name_that_is_none(name):
    with pytest.raises(CheckpointError, match=r"expected hf:OWNER/NAME"):
        weights.find_folder(name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": CARD}, "apache-2.0"),
        (
            {"README.md": "---\nlicense: other\nlicense_name: apple-amlr\nlicense_link: LICENSE\n---\n"},
            "apple-amlr (LICENSE)",
        ),
        (
            {"README.md": "# nothing stated\nlicense: mit\n"},
            "unknown, see https://huggingface.co/some/network",
        ),
        ({"README.md": "# nothing", "LICENSE.txt": "\nMIT License\n\ntext"}, "MIT License (LICENSE.txt)"),
        ({}, "unknown, see https://huggingface.co/some/network"),
    ],
)
def test_licences(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert weights.licence_of(tmp_path, "hf:some/network") == expected


def test_pickles_are_not_read(tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        weights.weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"found only pytorch_model\.bin, which could run code"):
        weights.weight_files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert weights.weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_settings_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected config\.json in"):
        weights.read_json(tmp_path / "config.json")
    for text, says in (("{", "damaged"), ("[1]", "expected a JSON object, got list")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=says):
            weights.read_json(tmp_path / "config.json")


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"geo4d\[transformers\]"):
        weights.load_network(tmp_path, torch.float32)


def test_what_transformers_cannot_load_is_one_error(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "depth_anything", "hidden": 3}))
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        weights.load_network(tmp_path, torch.float32)
    import transformers

    report = {"missing_keys": {"head.conv1.weight", "head.conv2.weight"}, "mismatched_keys": set()}
    monkeypatch.setattr(
        transformers,
        "AutoModelForDepthEstimation",
        SimpleNamespace(from_pretrained=lambda *a, **k: (None, report)),
    )
    with pytest.raises(CheckpointError, match=r"2 are missing or of another shape \(head\.conv1\.weight"):
        weights.load_network(tmp_path, torch.float32)


def test_without_the_library_of_the_hub_a_name_tells_the_extra_and_a_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    monkeypatch.setenv("GEO4D_MODELS", str(tmp_path / "store"))
    with pytest.raises(MissingExtraError, match=r"geo4d\[transformers\]"):
        weights.find_folder("hf:some/network")
    assert weights.find_folder(f"hf:{tmp_path}") == tmp_path


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def pickled_under_another_name(folder, bomb):
    (folder / "model.safetensors").write_bytes(bomb)


def index_of_pickles(folder, bomb):
    (folder / "evil.bin").write_bytes(bomb)
    names = {"backbone.embeddings.cls_token": "evil.bin"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "model.safetensors").rename(folder / "other.safetensors")


def index_of_another_folder(folder, bomb):
    names = {"backbone.embeddings.cls_token": "../elsewhere/model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def index_without_a_map(folder, bomb):
    (folder / "model.safetensors.index.json").write_text("{}")


def code_beside_it(folder, bomb):
    change_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text(f"open({str(folder / 'marker')!r}, 'w')")


def adapter(folder, bomb):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / "adapter_model.bin").write_bytes(bomb)


def kernel_of_the_hub(folder, bomb):
    backbone = json.loads((folder / "config.json").read_text())["backbone_config"]
    change_config(folder, backbone_config={**backbone, "attn_implementation": "somebody/kernel"})


def quantised(folder, bomb):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


ATTACKS = {
    pickled_under_another_name: "cannot load it",
    index_of_pickles: r"got evil\.bin",
    index_of_another_folder: r"got \.\./elsewhere",
    index_without_a_map: "expected a weight_map",
    code_beside_it: "custom code",
    adapter: "got an adapter",
    kernel_of_the_hub: "asks for code of the hub",
    quantised: "quantised network",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_folder_runs_code_or_reads_what_was_not_checked(tmp_path, attack):
    pytest.importorskip("transformers")
    from tests.support.hub_networks import save_network

    folder = save_network("depth_anything", tmp_path / "network")
    bomb = pickle.dumps(Bomb(folder / "marker"))
    pickle.loads(bomb).close()
    (folder / "marker").unlink()  # it was there: the bomb works
    attack(folder, bomb)

    def load():
        weights.weight_files(folder)
        weights.load_network(folder, torch.float32)

    with pytest.raises(CheckpointError, match=ATTACKS[attack]):
        load()
    assert not (folder / "marker").exists()


def test_pickles_and_code_beside_good_weights_are_left_alone(tmp_path):
    pytest.importorskip("transformers")
    from tests.support.hub_networks import save_network

    folder = save_network("depth_anything", tmp_path / "network")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "marker")))
    change_config(folder, auto_map={"AutoModelForDepthEstimation": "evil.Model"})
    (folder / "evil.py").write_text(f"open({str(folder / 'marker')!r}, 'w')")
    assert weights.weight_files(folder) == [folder / "model.safetensors"]
    weights.load_network(folder, torch.float32)
    assert not (folder / "marker").exists()
