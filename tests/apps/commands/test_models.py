"""``geo4d models`` on small made-up checkpoints."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from geo4d.apps.commands import models
from geo4d.apps.commands.models import ModelsOptions
from geo4d.errors import CheckpointError, OutputError
from geo4d.models.base import load_predictor
from geo4d.models.geo4d import config as configs
from geo4d.models.geo4d.pipeline import load
from geo4d.models.geo4d.weights import DEEPSPEED_PREFIX, main_table, point_vae_table
from geo4d.models.store.identity import PULLED, check_weights
from geo4d.models.store.sources import SOURCES, PinnedFile
from tests.support.hubs import Hub, serve
from tests.support.published import small, state


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both published files of a tiny network, and a store of its own."""
    monkeypatch.setenv("GEO4D_MODELS", str(tmp_path / "store"))
    monkeypatch.setitem(configs.PRESETS, "small", small)
    main, point = tmp_path / "main.ckpt", tmp_path / "point.ckpt"
    torch.save({"state_dict": state(main_table(small())), "epoch": 3}, main)
    torch.save({"state_dict": state(point_vae_table(small())) | {"loss.logvar": torch.zeros(())}}, point)
    return SimpleNamespace(main=str(main), point=str(point), store=tmp_path / "store", root=tmp_path)


def test_list_names_licences(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.run(ModelsOptions("list")) == 0
    printed = capsys.readouterr().out
    assert all(source.licence in printed for source in SOURCES.values())
    assert printed.count("not here") == len(SOURCES)


def test_pull_convert_verify_and_load(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    options = ModelsOptions("pull", "geo4d", files.main, files.point, size="small", offline=True)
    assert models.run(options) == 0
    assert models.run(ModelsOptions("verify", "geo4d")) == 0
    printed = capsys.readouterr().out
    assert "all hashes right" in printed
    assert "geo4d, predicts points, rays, disparity, " in printed
    predictor = load(dtype="float32", device="cpu")
    assert predictor.image_tower is None
    assert set(predictor.info.weights_compared) == {"recorded"}
    assert "no licence is stated" in (files.store / "geo4d" / "NOTICE.md").read_text()
    with pytest.raises(OutputError, match="exists"):
        models.run(options)
    shard = next((files.store / "geo4d").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="SHA-256"):
        models.run(ModelsOptions("verify", "geo4d"))
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(dtype="float32", device="cpu")


def test_deepspeed_form_gives_the_same_weights(files: SimpleNamespace) -> None:
    deepspeed = files.root / "deepspeed.pt"
    torch.save(
        {"module": {DEEPSPEED_PREFIX + k: v for k, v in state(main_table(small())).items()}}, deepspeed
    )
    folders = []
    for name, main in (("a", files.main), ("b", str(deepspeed))):
        output = files.root / name
        models.run(
            ModelsOptions("convert", None, main, files.point, output=output, size="small", keep_towers=True)
        )
        folders.append(json.loads((output / "model.safetensors.index.json").read_text()))
    hashes = [folder["metadata"]["shard_sha256"] for folder in folders]
    assert hashes[0] == hashes[1]
    assert any(name.startswith("image.") for name in folders[0]["weight_map"])


def test_wrong_files_are_explained(files: SimpleNamespace) -> None:
    with pytest.raises(CheckpointError, match=r"it looks like a Geo4D point-map codec"):
        models.run(
            ModelsOptions("convert", None, files.point, files.point, output=files.root / "o", size="small")
        )
    with pytest.raises(CheckpointError, match=r"it looks like a Geo4D main checkpoint|looks like"):
        models.run(
            ModelsOptions("convert", None, files.main, files.main, output=files.root / "o", size="small")
        )
    assert not (files.root / "o").exists()
    with pytest.raises(CheckpointError, match="SHA-256"):
        models.run(
            ModelsOptions(
                "convert", None, files.main, files.point, main_sha256="0" * 64, output=files.root / "o"
            )
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ModelsOptions("pull", "nothing"), "expected a model to pull"),
        (ModelsOptions("pull", "geo4d"), r"do not host on a model hub.*--main"),
        (ModelsOptions("pull", "moge", offline=True), "--offline"),
        (ModelsOptions("convert"), "expected --main"),
        (ModelsOptions("verify"), "expected a model, a folder"),
        (ModelsOptions("verify", "nothing"), "found nothing to verify"),
    ],
)
def test_what_is_missing_is_said(files: SimpleNamespace, options: ModelsOptions, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        models.run(options)


def test_verify_a_single_file(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.run(ModelsOptions("verify", files.point)) == 0
    assert "point-map codec" in capsys.readouterr().out


@pytest.fixture
def hub_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], Hub]:
    return partial(serve, monkeypatch)


def pin(monkeypatch: pytest.MonkeyPatch, revision: str | None, pinned: dict[str, PinnedFile]) -> None:
    repository = replace(SOURCES["moge"].hub[0], revision=revision, pinned=pinned)
    monkeypatch.setitem(SOURCES, "moge", replace(SOURCES["moge"], hub=(repository,)))


def pinned(data: bytes) -> PinnedFile:
    return PinnedFile(len(data), hashlib.sha256(data).hexdigest())


def test_hub_commit_and_hashes_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
    files: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    hub_of: Callable[[dict[str, bytes]], Hub],
) -> None:
    pin(monkeypatch, None, {})
    hub = hub_of({"model.pt": b"weights", "README.md": b"-"})
    weights = files.store / "moge" / "model.pt"
    assert models.run(ModelsOptions("pull", "moge")) == 0
    assert models.run(ModelsOptions("pull", "moge")) == 0
    assert hub.asked == [None, "c0ffee"]
    assert hub.downloads == ["model.pt"]  # the second time it is there and right
    assert "hashes recorded, none published" in capsys.readouterr().out
    assert models.run(ModelsOptions("verify", "moge")) == 0
    assert "1 files have their right hashes (1 recorded)" in capsys.readouterr().out
    assert models.run(ModelsOptions("pull", "moge", offline=True)) == 0
    weights.write_bytes(b"changed")
    for options in (ModelsOptions("verify", "moge"), ModelsOptions("pull", "moge", offline=True)):
        with pytest.raises(CheckpointError, match="recorded when it was pulled"):
            models.run(options)
    with pytest.raises(CheckpointError, match="recorded when it was pulled"):
        check_weights([weights])
    assert models.run(ModelsOptions("pull", "moge")) == 0  # the right file takes its place
    assert weights.read_bytes() == b"weights"
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.pt", "pulled.json"]


def test_a_hub_that_serves_or_states_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, files: SimpleNamespace, hub_of: Callable[[dict[str, bytes]], Hub]
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    pin(monkeypatch, commit, {"model.pt": pinned(b"weights")})
    weights = files.store / "moge" / "model.pt"
    hub = hub_of({"model.pt": b"weights"})
    hub.sha = "f" * 40
    with pytest.raises(CheckpointError, match=f"asked the hub for commit {commit}, it answered {'f' * 40}"):
        models.run(ModelsOptions("pull", "moge"))
    hub.sha, hub.content["model.pt"] = commit, b"harmful"
    with pytest.raises(CheckpointError, match=r"came with SHA-256 .* it is not kept"):
        models.run(ModelsOptions("pull", "moge"))
    hub.stated["model.pt"] = hashlib.sha256(b"harmful").hexdigest()
    with pytest.raises(CheckpointError, match=r"the published one of model\.pt has SHA-256"):
        models.run(ModelsOptions("pull", "moge"))
    hub.stated["model.pt"] = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(CheckpointError, match="it is not kept"):
        models.run(ModelsOptions("pull", "moge"))
    assert not [path for path in files.store.rglob("*") if path.name == "model.pt"]
    hub.content = {"other.pt": b""}
    with pytest.raises(CheckpointError, match=r"has none of \['model.pt'\]"):
        models.run(ModelsOptions("pull", "moge"))
    hub.content = {"model.pt": b"weights"}
    assert models.run(ModelsOptions("pull", "moge")) == 0
    assert hub.asked[-1] == commit
    assert check_weights([weights]).compared == {"pinned": 1}


def test_small_files_are_compared_with_the_git_object_that_the_hub_states(
    monkeypatch: pytest.MonkeyPatch, files: SimpleNamespace, hub_of: Callable[[dict[str, bytes]], Hub]
) -> None:
    pin(monkeypatch, None, {})
    hub = hub_of({"model.pt": b"weights"})
    real = hub.download

    def lying(repository: str, name: str, *, revision: str, local_dir: Path) -> None:
        real(repository, name, revision=revision, local_dir=local_dir)
        (Path(local_dir) / name).write_bytes(b"harmful")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", lying)
    with pytest.raises(CheckpointError, match="expected git object"):
        models.run(ModelsOptions("pull", "moge"))
    assert not (files.store / "moge" / "model.pt").exists()


def test_a_rewritten_record_does_not_outrank_the_package(
    monkeypatch: pytest.MonkeyPatch, files: SimpleNamespace, hub_of: Callable[[dict[str, bytes]], Hub]
) -> None:
    pin(monkeypatch, "c0ffee", {"model.pt": pinned(b"weights")})
    hub_of({"model.pt": b"weights"})
    assert models.run(ModelsOptions("pull", "moge")) == 0
    folder = files.store / "moge"
    (folder / "model.pt").write_bytes(b"harmful")
    record = json.loads((folder / PULLED).read_text())
    record["Ruicheng/moge-vitl"]["sha256"]["model.pt"] = hashlib.sha256(b"harmful").hexdigest()
    (folder / PULLED).write_text(json.dumps(record))
    for call in (
        lambda: check_weights([folder / "model.pt"]),
        lambda: models.run(ModelsOptions("verify", "moge")),
    ):
        with pytest.raises(CheckpointError, match="the published one"):
            call()
    with pytest.raises(CheckpointError, match="the published one"):
        load_predictor("moge")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "7",
        "[" * 100_000,
        '{"a/b": []}',
        '{"a/b": {"revision": "x", "sha256": {}}}',
        '{"a/b": {"revision": "x", "sha256": {"../../x": "' + "0" * 64 + '"}}}',
        '{"a/b": {"revision": "x", "folder": "/etc", "sha256": {"passwd": "' + "0" * 64 + '"}}}',
        '{"a/b": {"revision": "x", "sha256": {"f": 1}}}',
    ],
)
def test_a_record_without_hashes_verifies_nothing(files: SimpleNamespace, text: str) -> None:
    folder = files.store / "moge"
    folder.mkdir(parents=True)
    (folder / PULLED).write_text(text)
    (folder / "model.pt").write_bytes(b"harmful")
    with pytest.raises(CheckpointError, match="damaged"):
        models.run(ModelsOptions("verify", "moge"))
    with pytest.raises(CheckpointError, match="damaged"):
        load_predictor("moge")


def test_files_added_to_a_pulled_model_are_not_loaded(
    monkeypatch: pytest.MonkeyPatch, files: SimpleNamespace, hub_of: Callable[[dict[str, bytes]], Hub]
) -> None:
    pin(monkeypatch, None, {})
    hub_of({"model.pt": b"weights"})
    assert models.run(ModelsOptions("pull", "moge")) == 0
    (files.store / "moge" / "vae").mkdir()
    added = files.store / "moge" / "vae" / "model.safetensors"
    added.write_bytes(b"harmful")
    with pytest.raises(CheckpointError, match="not among the files that were pulled"):
        check_weights([added])


def test_options_are_documented(command_help: Callable[[str], str]) -> None:
    assert "--point-vae" in command_help("models")


@pytest.fixture
def command_help(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def run(name: str) -> str:
        from geo4d.apps.cli import main

        assert main([name, "--help"]) == 0
        return capsys.readouterr().out

    return run


def test_a_depth_network_of_the_hub(
    files: SimpleNamespace, capsys: pytest.CaptureFixture[str], hub_of: Callable[[dict[str, bytes]], Hub]
) -> None:
    """Its licence is shown, its safetensors are taken and recorded, and nothing else of the repository."""
    card = b"---\nlicense: apache-2.0\n---\n"
    content = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "README.md": card,
        "pytorch_model.bin": b"x",
    }
    hub = hub_of(content)
    assert models.run(ModelsOptions("pull", "hf:some/network")) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "licence of these weights: unknown, see https://huggingface.co/some/network"
    )  # the hub's word
    assert "licence of these weights: apache-2.0" in said
    assert "--model hf:some/network" in said
    folder = files.store / "hf" / "some--network"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "pulled.json",
    ]
    assert models.run(ModelsOptions("verify", "hf:some/network")) == 0
    assert models.run(ModelsOptions("pull", "hf:some/network", offline=True)) == 0
    (folder / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="recorded when it was pulled"):
        check_weights([folder / "model.safetensors"])
    assert "pytorch_model.bin" not in hub.downloads
    del content["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"safetensors|missing"):
        models.run(ModelsOptions("pull", "hf:other/network"))
    with pytest.raises(CheckpointError, match="expected hf:OWNER/NAME"):
        models.run(ModelsOptions("pull", "hf:nothing"))
