"""``geo4d models`` on small made-up checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from geo4d.apps.commands import models
from geo4d.apps.commands.models import ModelsOptions
from geo4d.errors import CheckpointError, OutputError
from geo4d.models import hub
from geo4d.models.geo4d import config as configs
from geo4d.models.geo4d.config import CLIPConfig, Geo4DConfig, ResamplerConfig, UNetConfig, VAEConfig
from geo4d.models.geo4d.pipeline import load
from geo4d.models.geo4d.weights import DEEPSPEED_PREFIX, PublishedKey, main_table, point_vae_table
from geo4d.models.sources import SOURCES, HubRepository


def tiny() -> Geo4DConfig:
    return Geo4DConfig(
        unet=UNetConfig(
            model_channels=32, channel_mult=(1, 1), num_res_blocks=1, num_head_channels=16, context_dim=16
        ),
        vae=VAEConfig(channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1),
        resampler=ResamplerConfig(16, 1, 8, 2, 16, 16, 20, 16),
        clip=CLIPConfig(16, 16, 2, 2, 77, 49408, 1, 20, 1, 20, 28),
    )


def state(table: dict[str, PublishedKey]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(key.shape, generator=generator) for name, key in table.items()}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both published files of a tiny network, and a store of its own."""
    monkeypatch.setenv("GEO4D_MODELS", str(tmp_path / "store"))
    monkeypatch.setitem(configs.PRESETS, "small", tiny)
    main, point = tmp_path / "main.ckpt", tmp_path / "point.ckpt"
    torch.save({"state_dict": state(main_table(tiny())), "epoch": 3}, main)
    torch.save({"state_dict": state(point_vae_table(tiny())) | {"loss.logvar": torch.zeros(())}}, point)
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
    assert "all hashes right" in capsys.readouterr().out
    predictor = load(dtype="float32", device="cpu")
    assert predictor.image_tower is None
    assert "no licence is stated" in (files.store / "geo4d" / "NOTICE.md").read_text()
    with pytest.raises(OutputError, match="exists"):
        models.run(options)
    shard = next((files.store / "geo4d").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="SHA-256"):
        models.run(ModelsOptions("verify", "geo4d"))


def test_deepspeed_form_gives_the_same_weights(files: SimpleNamespace) -> None:
    deepspeed = files.root / "deepspeed.pt"
    torch.save({"module": {DEEPSPEED_PREFIX + k: v for k, v in state(main_table(tiny())).items()}}, deepspeed)
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


def test_hub_commit_and_hashes_are_recorded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str | None] = []
    content = {"model.pt": b"weights", "README.md": b"-"}

    def model_info(self: object, repository: str, revision: str | None = None) -> SimpleNamespace:
        asked.append(revision)
        return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in content])

    def download(repository: str, name: str, *, revision: str, local_dir: Path) -> None:
        Path(local_dir).mkdir(parents=True, exist_ok=True)
        (Path(local_dir) / name).write_bytes(content[name])

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert models.run(ModelsOptions("pull", "moge")) == 0
    assert models.run(ModelsOptions("pull", "moge")) == 0
    assert asked == [None, "c0ffee"]
    assert models.run(ModelsOptions("verify", "moge")) == 0
    assert "1 files" in capsys.readouterr().out
    assert models.run(ModelsOptions("pull", "moge", offline=True)) == 0
    content["model.pt"] = b"changed"
    with pytest.raises(CheckpointError, match="recorded was"):
        models.run(ModelsOptions("pull", "moge"))
    with pytest.raises(CheckpointError, match="has none of"):
        hub.fetch_repository(HubRepository("a/b", ("*.safetensors",)), tmp_path, None, {})


def test_options_are_documented(command_help: Callable[[str], str]) -> None:
    assert "--point-vae" in command_help("models")


@pytest.fixture
def command_help(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def run(name: str) -> str:
        from geo4d.apps.cli import main

        assert main([name, "--help"]) == 0
        return capsys.readouterr().out

    return run
