"""``geo4d data pack`` and ``geo4d train``, from the command line to weights that the package reads."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from geo4d.apps.cli import main
from geo4d.apps.commands.train import TrainOptions, iter_plans
from geo4d.errors import CheckpointError
from geo4d.models.tiny.pipeline import load
from geo4d.models.tiny.weights import load_model
from geo4d.models.trained import read_trained
from geo4d.training.recipes import find_stage
from geo4d.training.shards import ShardSource
from geo4d.training.tasks.geo4d import planning

pytest.importorskip("numba")


@pytest.mark.slow
def test_packed_clips_train_a_stage(tmp_path) -> None:
    shards, codec, pairs = tmp_path / "shards", tmp_path / "codec", tmp_path / "pairs"
    small = ["--preset", "smallest", "--workers", "0"]
    pack = ["data", "pack", "-o", str(shards), "--stage", "pairs", "--clips", "6", "--per-shard", "4"]
    assert main([*pack, *small]) == 0
    packed = ShardSource(shards)
    assert len(packed) == 6
    preset, stage = find_stage("tiny", "smallest", "pairs")
    truth = stage.streams[0].source(preset.seed)(stage.first_clip + 5)
    assert torch.equal(packed(5).rgb, truth.rgb)
    common = [*small, "--validation", "0", "--device", "cpu", "--shards", str(shards)]
    assert main(["train", "codec", "-o", str(codec), *common]) == 0
    start = ["--start", str(codec / "weights"), "--steps", "2", "--accumulate", "2", "--checkpointing"]
    assert main(["train", "pairs", "-o", str(pairs), *start, *common]) == 0
    config = json.loads((pairs / "config.json").read_text())
    assert (config["num_steps"], config["accumulate"], config["checkpointing"]) == (2, 2, True)
    load_model(pairs / "weights/model.safetensors")
    assert main(["train", "pairs", "-o", str(pairs), *start, *common]) != 0
    assert main(["train", "pairs", "-o", str(pairs), *start, *common, "--steps", "3", "--resume"]) == 0
    rows = [json.loads(line) for line in (pairs / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3


@pytest.mark.slow
def test_the_tiny_chain_ends_in_weights_that_are_known(tmp_path, capsys) -> None:
    run, shards = tmp_path / "run", tmp_path / "shards"
    small = ["--preset", "smallest", "--workers", "0"]
    assert main(["data", "pack", "-o", str(shards), "--stage", "windows", "--clips", "6", *small]) == 0
    command = ["train", "all", "--family", "tiny", *small, "-o", str(run), "--shards", str(shards)]
    command += ["--steps", "2", "--validation", "0", "--device", "cpu"]
    assert main(command) == 0
    names = ["codec", "pairs", "clips", "windows", "depth", "calibration"]
    assert sorted(path.name for path in run.iterdir()) == sorted([*names, "weights"])
    assert read_trained(run / "weights")["stages"] == names
    assert load(weights=run / "weights", device="cpu").info.weights_compared == {"recorded": 1}
    assert load_model(run / "weights/model.safetensors").calibration.disparity.seen
    assert main(["models", "verify", str(run / "weights")]) == 0
    assert "tiny, trained up to stage 'calibration'" in capsys.readouterr().out
    assert main([*command, "--resume"]) == 0
    assert main(command) != 0
    file = run / "weights/model.safetensors"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="recorded"):
        load(weights=run / "weights", device="cpu")


def test_families_and_old_presets_are_told(tmp_path, capsys) -> None:
    where = ["-o", str(tmp_path / "run")]
    assert main(["train", "points", *where]) != 0
    assert "--family" in capsys.readouterr().err
    assert main(["train", "all", *where, "--preset", "smallest"]) != 0
    assert "--family" in capsys.readouterr().err
    assert main(["train", "pairs", *where, "--preset", "tiny"]) != 0
    assert "--family tiny --preset full" in capsys.readouterr().err
    assert main(["train", "maps", *where]) != 0
    assert "--family geometrycrafter" in capsys.readouterr().err
    assert main(["train", "codec", *where, "--modalities", "points"]) != 0
    assert "--modalities with --family geo4d alone" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_plan_of_a_chain_is_that_of_its_modalities(monkeypatch) -> None:
    seen: list[tuple[str, int]] = []

    def plan(preset, stage, name, **_):
        seen.append((name, preset.geo4d.unet.in_channels))
        return SimpleNamespace(lines=lambda way: [])

    monkeypatch.setattr(planning, "plan", plan)
    command = TrainOptions("all", family="geo4d", preset="smallest", modalities="points")
    list(iter_plans("geo4d", command))
    assert seen == [(name, 8) for name in ("pictures", "decoder", "points", "multiresolution")]
    seen.clear()
    list(iter_plans("geo4d", replace(command, modalities=None)))
    assert seen[-1] == ("disparity", 20)


@pytest.mark.parametrize("family", ["geo4d", "geometrycrafter"])
def test_validation_shards_that_are_not_there_are_said(family, tmp_path, capsys):
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    words = ["train", "pictures", "--family", family, "--preset", "smallest", "-o", str(tmp_path / "run")]
    assert main([*words, "--validation-shards", str(tmp_path / "nowhere")]) != 0
    assert "expected packed clips" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
