"""Geo4D's chain without published weights, from the command line to a reconstructed video."""

import json
from pathlib import Path

import numpy as np
import pytest

from geo4d.apps.cli import main
from geo4d.errors import CheckpointError
from geo4d.models.geo4d.pipeline import load
from geo4d.training.recipes import PRESETS
from geo4d.training.tasks.geo4d.networks import FolderPlan, fresh_networks
from geo4d.training.tasks.geo4d.presets import smallest_config

pytest.importorskip("numba")

STAGES = ["pictures", "decoder", "points", "multiresolution", "rays", "disparity"]


def reconstruct_noise(folder: Path, weights: Path, *more: str) -> int:
    """The exit code of a run on four random pictures, whatever they come out as."""
    from PIL import Image

    frames = folder / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for t in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(frames / f"{t:03d}.png")
    words = ["reconstruct", str(frames), "-o", str(folder / "out"), "--model", "geo4d"]
    return main([*words, "--weights", str(weights), "--keep-going", "--device", "cpu", *more])


@pytest.mark.slow
def test_the_chain_runs_from_the_command_line_and_its_weights_reconstruct_a_video(
    tmp_path: Path, capsys
) -> None:
    from geo4d.results.reader import load_result

    run = tmp_path / "run"
    command = ["train", "all", "--family", "geo4d", "--preset", "smallest", "-o", str(run), "--workers", "0"]
    command += ["--steps", "2", "--validation", "1", "--device", "cpu"]
    assert main(command) == 0
    assert {path.name for path in run.iterdir()} == {*STAGES, "weights"}
    config = json.loads((run / "weights/config.json").read_text())
    assert config["training"]["stages"] == STAGES == list(PRESETS["geo4d"]["smallest"]().chain)
    assert main(["models", "verify", str(run / "weights")]) == 0
    assert "geo4d" in capsys.readouterr().out
    code = reconstruct_noise(tmp_path, run / "weights")
    assert code == 0
    assert load_result(tmp_path / "out").depth.shape == (4, 64, 64)
    assert main([*command, "--resume"]) == 0  # nothing is left to do
    assert main(command) != 0
    with pytest.raises(CheckpointError, match="trained up to points, rays; go on"):
        load(weights=run / "rays/weights", device="cpu")
    # Fine-tuning: the same command from finished weights leaves out the stage that makes the codec.
    again = [*command[:7], str(tmp_path / "more"), *command[8:], "--start", str(run / "weights")]
    assert main([*again, "--steps", "1"]) == 0
    assert {path.name for path in (tmp_path / "more").iterdir()} == {*STAGES[1:], "weights"}


@pytest.mark.slow
def test_a_chain_of_points_alone_ends_in_weights_that_reconstruct_a_video(tmp_path: Path, capsys) -> None:
    from geo4d.results.reader import load_result

    run = tmp_path / "run"
    command = ["train", "all", "--family", "geo4d", "--preset", "smallest", "-o", str(run), "--workers", "0"]
    command += ["--steps", "2", "--validation", "0", "--device", "cpu"]
    assert main([*command, "--modalities", "points"]) == 0
    assert {path.name for path in run.iterdir()} == {*STAGES[:4], "weights"}
    config = json.loads((run / "weights/config.json").read_text())
    assert config["modalities"] == ["points"]
    assert (config["network"]["unet"]["in_channels"], config["network"]["unet"]["out_channels"]) == (8, 4)
    capsys.readouterr()
    assert main(["models", "verify", str(run / "weights")]) == 0
    assert "predicts points," in capsys.readouterr().out
    assert main(["models", "verify", str(run / "decoder/weights")]) == 0
    assert "a start for training alone: it has channels of points, and" in capsys.readouterr().out
    code = reconstruct_noise(tmp_path, run / "weights", "--num-steps", "1")
    assert code == 0
    result = load_result(tmp_path / "out")
    assert result.c2w is not None  # from the point maps
    assert np.isfinite(result.c2w).all()
    # With other channels it is not gone on from, neither the chain nor a stage.
    assert main([*command, "--resume", "--modalities", "points+rays"]) != 0
    assert "expected a network with channels of rays" in capsys.readouterr().err
    networks = fresh_networks(smallest_config())
    FolderPlan(networks, {"stage": "s", "stages": ["s"]}, ()).write(tmp_path / "wide", {})
    stage = [
        "train",
        "points",
        *command[2:7],
        str(run / "points"),
        *command[8:],
        "--start",
        str(tmp_path / "wide"),
    ]
    assert main([*stage, "--resume", "--modalities", "points+rays"]) != 0
    assert "expected a state of the same network" in capsys.readouterr().err
