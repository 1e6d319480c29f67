"""Converted folders: round trips, stopped conversions, damage."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geo4d.errors import CheckpointError, OutputError
from geo4d.formats.hashes import sha256_of
from geo4d.models.store.folder import INDEX, ModelFolder, write_model_folder

CONFIG = {"family": "toy", "network": {}, "source": "x"}


def test_folder_round_trip_and_hashes(tmp_path: Path) -> None:
    tensors = {f"net.{i}": torch.full((100,), float(i)) for i in range(5)} | {"other.n": torch.arange(3)}
    written = write_model_folder(tmp_path / "m", tensors, CONFIG, "licence", shard_bytes=900)
    assert len(written.shard_sha256) == 3
    folder = ModelFolder.open(tmp_path / "m", "toy")
    folder.verify()
    assert folder.sha256 == written.sha256
    assert all(torch.equal(v, tensors[f"net.{k}"]) for k, v in folder.part("net").items())
    assert folder.part("other")["n"].dtype == torch.int64
    assert (tmp_path / "m" / "NOTICE.md").read_text() == "licence"
    assert not (tmp_path / "m.partial").exists()
    with pytest.raises(OutputError, match="exists"):
        write_model_folder(tmp_path / "m", tensors, CONFIG, "licence")
    half = write_model_folder(tmp_path / "m", tensors, CONFIG, "n", dtype=torch.float16, overwrite=True)
    assert half.part("net")["1"].dtype == torch.float16
    assert half.part("other")["n"].dtype == torch.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_stopped_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {f"net.{i}": torch.full((100,), float(i)) for i in range(4)}
    saved: list[str] = []

    def failing(values: dict, path: Path, fail_at: int) -> None:
        saved.append(Path(path).name)
        if len(saved) == fail_at:
            raise OSError("no space left")
        save_file(values, path)

    monkeypatch.setattr("geo4d.models.store.folder.save_file", lambda v, p: failing(v, p, 3))
    with pytest.raises(OutputError, match=r"no space left.*go on"):
        write_model_folder(tmp_path / "m", tensors, CONFIG, "", shard_bytes=400)
    assert not (tmp_path / "m").exists()
    monkeypatch.setattr("geo4d.models.store.folder.save_file", lambda v, p: failing(v, p, -1))
    shard = tmp_path / "m.partial" / "model-00001-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")  # damaged meanwhile: is written again
    saved.clear()
    resumed = write_model_folder(tmp_path / "m", tensors, CONFIG, "", shard_bytes=400)
    assert [name[:11] for name in saved] == ["model-00001", "model-00003", "model-00004"]
    resumed.verify()
    other = write_model_folder(tmp_path / "n", tensors, CONFIG, "", shard_bytes=400)
    assert other.sha256 == resumed.sha256


def test_bad_folders(tmp_path: Path) -> None:
    def make(name: str) -> Path:
        write_model_folder(tmp_path / name, {"net.a": torch.ones(4)}, CONFIG, "")
        return tmp_path / name

    def edit_index(path: Path, change: Callable[[dict], None]) -> None:
        index = json.loads((path / INDEX).read_text())
        change(index)
        (path / INDEX).write_text(json.dumps(index))

    with pytest.raises(CheckpointError, match=r"not there.*models pull toy"):
        ModelFolder.open(tmp_path / "none", "toy")
    with pytest.raises(CheckpointError, match="expected a geo4d model, got 'toy'"):
        ModelFolder.open(make("family"), "geo4d")
    path = make("outside")
    edit_index(path, lambda index: index["weight_map"].update({"net.a": "../other.safetensors"}))
    with pytest.raises(CheckpointError, match="not a file of this folder"):
        ModelFolder.open(path, "toy")
    path = make("missing_shard")
    next(path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        ModelFolder.open(path, "toy")
    path = make("no_index")
    (path / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        ModelFolder.open(path, "toy")
    path = make("flipped")
    shard = next(path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="SHA-256"):
        ModelFolder.open(path, "toy")
    path = make("cut")
    opened = ModelFolder.open(path, "toy")
    shard = next(path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="SHA-256"):
        ModelFolder.open(path, "toy")
    with pytest.raises(CheckpointError, match="damaged"):
        opened.part("net")
    with pytest.raises(CheckpointError, match="SHA-256"):
        opened.verify()
    path = make("config")
    (path / "config.json").write_text(json.dumps({**CONFIG, "network": {"width": 3}}))
    with pytest.raises(CheckpointError, match=r"config\.json: SHA-256"):
        ModelFolder.open(path, "toy")
    for text in ("[]", "7", "[" * 100_000):
        (path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="incomplete or damaged"):
            ModelFolder.open(path, "toy")


def test_a_changed_record_changes_the_identity(tmp_path: Path) -> None:
    """Who changes a shard and its record gets weights of another identity, never the true one."""
    written = write_model_folder(tmp_path / "m", {"net.a": torch.ones(1000)}, CONFIG, "")
    shard = next((tmp_path / "m").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-2] + b"\x10\x10")
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    index["metadata"]["shard_sha256"] = {shard.name: sha256_of(shard)}
    (tmp_path / "m" / INDEX).write_text(json.dumps(index))
    assert ModelFolder.open(tmp_path / "m", "toy").sha256 != written.sha256
