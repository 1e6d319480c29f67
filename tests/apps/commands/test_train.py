"""``geo4d data pack`` and ``geo4d train``, from the command line to weights that the package reads."""

import json

import pytest
import torch

from geo4d.apps.cli import main
from geo4d.models.tiny.weights import load_model
from geo4d.training.shards import ShardSource
from geo4d.training.stages import find_stage

pytest.importorskip("numba")


@pytest.mark.slow
def test_packed_clips_train_a_stage(tmp_path) -> None:
    shards, codec, pairs = tmp_path / "shards", tmp_path / "codec", tmp_path / "pairs"
    small = ["--preset", "smallest", "--workers", "0"]
    pack = ["data", "pack", "-o", str(shards), "--stage", "pairs", "--clips", "6", "--per-shard", "4"]
    assert main([*pack, *small]) == 0
    packed = ShardSource(shards)
    assert len(packed) == 6
    preset, stage = find_stage("smallest", "pairs")
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
