import json
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
