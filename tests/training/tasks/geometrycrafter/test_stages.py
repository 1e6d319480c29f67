import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.errors import InputError, OutputError, TrainingError
from geo4d.models.store.identity import check_trained
from geo4d.models.trained import TRAINED
from geo4d.training.loop import train
from geo4d.training.tasks.geometrycrafter.stages import StageRun, run_stage
from tests.support.trained import LOOP, batches, losses, maps_task

pytest.importorskip("diffusers")


pytest.importorskip("transformers")


def test_starts_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Stable Video Diffusion"):
        run_stage("full", "maps", StageRun(tmp_path))
    with pytest.raises(InputError, match="weights of 'maps'"):
        run_stage("smallest", "maps-video", StageRun(tmp_path))


def test_a_nan_stops_the_run_names_the_clips_and_keeps_the_state(start, order, tmp_path: Path) -> None:
    task = maps_task(start)
    forward = task.forward

    def poisoned(batch):
        loss, parts = forward(batch)
        bad = 5 in batch.samples.tolist()  # step 2
        return loss * (torch.nan if bad else 1.0), parts

    task.forward = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"step 2 is nan .*walls wall-5 \(sample 5\)"):
        train(task, batches(order), LOOP, tmp_path, device="cpu")
    progress = train(maps_task(start), batches(order), LOOP, tmp_path, resume=True, device="cpu")
    assert progress.step == 4
    train(maps_task(start), batches(order), LOOP, tmp_path / "whole", device="cpu")
    assert losses(tmp_path) == losses(tmp_path / "whole")


def test_a_full_disk_leaves_the_last_good_state(start, order, tmp_path: Path) -> None:
    loop = replace(LOOP, num_steps=2)
    train(maps_task(start), batches(order), loop, tmp_path, device="cpu")
    kept = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        longer = replace(LOOP, num_steps=6)  # so that step 4 saves its state alone
        with pytest.raises(OutputError, match=r"cannot write the state of step 4.*is kept in"):
            train(maps_task(start), batches(order), longer, tmp_path, resume=True, device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == kept
    assert not list(tmp_path.glob("*.partial"))
    check_trained(tmp_path / "weights")
    assert train(maps_task(start), batches(order), LOOP, tmp_path, resume=True, device="cpu").step == 4


@pytest.mark.slow
def test_the_chain_runs_from_the_command_line_and_its_weights_reconstruct_a_video(
    tmp_path: Path, capsys
) -> None:
    pytest.importorskip("numba")
    import numpy as np
    from PIL import Image

    from geo4d.apps.cli import main
    from geo4d.results.reader import load_result

    run = tmp_path / "run"
    command = ["train", "all", "--family", "geometrycrafter", "--preset", "smallest", "-o", str(run)]
    command += ["--steps", "2", "--validation", "1", "--device", "cpu"]
    assert main(command) == 0
    assert {path.name for path in run.iterdir()} == {
        "pictures",
        "maps",
        "maps-video",
        "unet",
        "unet-long",
        "weights",
    }
    record = json.loads((run / "weights" / TRAINED).read_text())
    assert record["stages"] == ["pictures", "maps", "maps-video", "unet", "unet-long"]
    assert main(["models", "verify", str(run / "weights")]) == 0
    assert "all hashes right" in capsys.readouterr().out
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for t in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(frames / f"{t:03d}.png")
    code = main(
        ["reconstruct", str(frames), "-o", str(tmp_path / "out"), "--model", "geometrycrafter", "--weights",
         str(run / "weights"), "--keep-going", "--device", "cpu"]
    )  # fmt: skip
    assert code == 0
    assert load_result(tmp_path / "out").depth.shape == (4, 64, 64)
    assert main([*command, "--resume"]) == 0  # nothing is left to do


@pytest.mark.slow
def test_the_chain_of_the_deterministic_variant_reconstructs_a_video_in_one_pass(
    tmp_path: Path, capsys
) -> None:
    pytest.importorskip("numba")
    import numpy as np
    from PIL import Image

    from geo4d.apps.cli import main
    from geo4d.models.base import load_predictor
    from geo4d.results.reader import load_result

    run = tmp_path / "run"
    command = ["train", "all", "--family", "geometrycrafter", "--preset", "smallest", "-o", str(run)]
    command += ["--variant", "determ", "--steps", "2", "--validation", "1", "--device", "cpu"]
    assert main(command) == 0
    assert "--model geometrycrafter-determ" in capsys.readouterr().out
    weights = run / "weights"
    assert (weights / "unet_determ").is_dir()
    assert not (weights / "unet_diff").exists()
    assert main(["models", "verify", str(weights)]) == 0
    log = [json.loads(line) for line in (run / "unet-long/log.jsonl").read_text().splitlines()]
    assert {"eval/abs_rel", "eval/prior_abs_rel"} <= log[-1].keys()
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for t in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(frames / f"{t:03d}.png")
    given = ["--weights", str(weights), "--keep-going", "--device", "cpu"]
    out = ["reconstruct", str(frames), "-o", str(tmp_path / "out"), "--model"]
    assert main([*out, "geometrycrafter-determ", *given]) == 0
    assert load_result(tmp_path / "out").depth.shape == (4, 64, 64)
    network = load_predictor("geometrycrafter-determ", weights=weights, device="cpu").system.unet
    assert network.conv_in.in_channels == 8
    # The generative network is not there, and that is said.
    assert (
        main(["reconstruct", str(frames), "-o", str(tmp_path / "no"), "--model", "geometrycrafter", *given])
        != 0
    )
    assert "unet_diff" in capsys.readouterr().err


def test_a_chain_with_a_start_leaves_out_the_stage_that_makes_the_codec(tmp_path, monkeypatch) -> None:
    from geo4d.training.loop import Progress
    from geo4d.training.tasks.geometrycrafter import stages

    called: list[tuple[str, object]] = []

    def run_stage(preset_name: str, stage_name: str, run: stages.StageRun, loop: object) -> Progress:
        called.append((stage_name, run.start))
        (run.folder / "weights").mkdir(parents=True)
        (run.folder / "weights" / "trained.json").write_text("{}")
        return Progress()

    monkeypatch.setattr(stages, "run_stage", run_stage)
    stages.run_all("smallest", stages.StageRun(tmp_path / "own"))
    assert called[0] == ("pictures", None)
    called.clear()
    stages.run_all("smallest", stages.StageRun(tmp_path / "tuned", start=tmp_path / "before"))
    assert called[0] == ("maps", tmp_path / "before")
    assert [name for name, _ in called[1:]] == ["maps-video", "unet", "unet-long"]
