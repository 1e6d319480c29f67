import sys
from types import ModuleType

import pytest
import torch

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.tracks.weights import load_folder, load_state


class Blocks(torch.nn.Module):
    """The names that kornia gives to the blocks of LightGlue."""

    def __init__(self):
        super().__init__()
        block = torch.nn.ModuleDict({"self_attn": torch.nn.Linear(2, 2), "cross_attn": torch.nn.Linear(2, 2)})
        self.transformers = torch.nn.ModuleList([block])
        self.register_buffer("confidence_thresholds", torch.ones(3))


def test_the_authors_names_are_understood(tmp_path):
    source = Blocks()
    authors = {
        "matcher.self_attn.0.weight": source.transformers[0]["self_attn"].weight,
        "matcher.self_attn.0.bias": source.transformers[0]["self_attn"].bias,
        "cross_attn.0.weight": source.transformers[0]["cross_attn"].weight,
        "cross_attn.0.bias": source.transformers[0]["cross_attn"].bias,
    }
    torch.save(authors, tmp_path / "authors.pth")
    loaded = load_state(Blocks(), tmp_path / "authors.pth", "glue")
    assert not loaded.training
    for (name, wanted), found in zip(source.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(wanted, found), name
    del authors["cross_attn.0.bias"]
    torch.save(authors, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match="does not hold glue weights"):
        load_state(Blocks(), tmp_path / "less.pth", "glue")
    with pytest.raises(CheckpointError, match=r"expected glue weights at .*nothing.pth"):
        load_state(Blocks(), tmp_path / "nothing.pth", "glue")


class Model(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        assert local_files_only  # nothing is ever downloaded
        if not (folder / "config.json").exists():
            raise OSError("no config.json")
        return cls()


def test_folders_of_transformers(tmp_path, monkeypatch):
    module = ModuleType("transformers")
    module.Model = Model
    monkeypatch.setitem(sys.modules, "transformers", module)
    with pytest.raises(CheckpointError, match="expected a folder of a matcher"):
        load_folder("Model", tmp_path / "none", "a matcher")
    with pytest.raises(CheckpointError, match=r"does not hold a matcher: no config.json"):
        load_folder("Model", tmp_path, "a matcher")
    (tmp_path / "config.json").write_text("{}")
    assert not load_folder("Model", tmp_path, "a matcher").training
    with pytest.raises(MissingExtraError, match=r"a matcher needs the package 'transformers'"):
        load_folder("OfAnotherVersion", tmp_path, "a matcher")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="geometrycrafter"):
        load_folder("Model", tmp_path, "a matcher")
