"""``geo4d evaluate`` from the command line: lists, files, tables, pictures, exit codes."""

import json

import numpy as np
import pytest

from geo4d.apps.cli import main
from geo4d.formats.cameras import save_tum
from geo4d.formats.images import save_image


@pytest.fixture
def folders(tmp_path):
    """One clip of a moving camera over a wall in the simple layout, and half-scale predictions for it."""
    rng = np.random.default_rng(0)
    clip, guess = tmp_path / "data" / "wall", tmp_path / "predictions" / "wall"
    c2w = np.tile(np.eye(4), (4, 1, 1))
    c2w[:, :3, 3] = [[0, 0, 0], [0.1, 0, 0.05], [0.2, 0.1, 0], [0.3, 0.1, 0.2]]
    for folder in (clip, guess):
        (folder / "depth").mkdir(parents=True)
    for t in range(4):
        save_image(clip / "rgb" / f"{t}.png", rng.integers(0, 255, (12, 16, 3), np.uint8))
        depth = np.full((12, 16), 5.0, np.float32) - c2w[t, 2, 3]
        np.savez(clip / "depth" / f"{t}.npz", depth=depth)
        np.savez(guess / "depth" / f"{t}.npz", depth=depth / 2)
    (clip / "clip.json").write_text('{"fps": 10}')
    (clip / "intrinsics.txt").write_text("16 16 8 6")
    save_tum(clip / "poses.txt", np.arange(4) / 10, c2w)
    save_tum(guess / "poses.txt", np.arange(4.0), c2w)
    return tmp_path / "data", tmp_path / "predictions"


def test_list(capsys):
    assert main(["evaluate", "list"]) == 0
    printed = capsys.readouterr().out
    for name in ("synthetic", "samples", "sintel", "diode", "nerfstudio"):
        assert name in printed


def test_predictions_give_a_file_a_table_and_pictures(folders, tmp_path, capsys):
    root, predictions = folders
    file, plots = tmp_path / "result.json", tmp_path / "plots"
    words = ["evaluate", "folder", "--root", str(root), "--predictions", str(predictions), "--quiet"]
    assert main([*words, "--json", str(file), "--table", "markdown", "--plots", str(plots)]) == 0
    result = json.loads(file.read_text())
    assert result["sequences"][0]["name"] == "wall"
    assert result["mean"]["abs_rel"] < 1e-5
    assert result["mean"]["ate"] < 1e-5
    assert result["protocol"]["depth"]["alignment"] == "median_scale"
    assert "| wall |" in capsys.readouterr().out
    assert {path.name for path in plots.iterdir()} == {"wall_depth.png", "wall_cameras.png"}
    assert not list(tmp_path.glob("result.json.parts*"))


def test_another_protocol(folders, tmp_path):
    root, predictions = folders
    file = tmp_path / "result.json"
    words = ["evaluate", "folder", "--root", str(root), "--predictions", str(predictions), "--quiet"]
    assert main([*words, "--protocol", "metric", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["mean"]["abs_rel"] == pytest.approx(0.5, abs=1e-5)


def test_wrong_input_is_one_line_and_an_exit_code(folders, tmp_path, capsys):
    root, predictions = folders
    assert main(["evaluate", "sintel", "--root", str(root), "--predictions", str(predictions)]) == 3
    assert "sintel.is.tue.mpg.de" in capsys.readouterr().err
    assert main(["evaluate", "folder", "--root", str(root), "--predictions", str(tmp_path / "none")]) == 3
    assert "docs/protocols.md" in capsys.readouterr().err
    assert main(["evaluate", "nothing", "--root", str(root)]) == 2
    assert (
        main(
            ["evaluate", "folder", "--root", str(root), "--model", "tiny", "--predictions", str(predictions)]
        )
        == 2
    )
    both = ["evaluate", "folder", "--root", str(root), "--predictions", str(predictions), "--ablate", "steps"]
    assert main(both) == 2


@pytest.mark.slow
def test_held_out_set_with_trivial_predictors(tmp_path):
    pytest.importorskip("numba")
    from geo4d.evaluation.sequences import heldout_sequence

    sequence = heldout_sequence(20)
    guess = tmp_path / "predictions" / sequence.name
    (guess / "depth").mkdir(parents=True)
    for t in range(sequence.num_frames):
        np.savez(guess / "depth" / f"{t:02d}.npz", depth=np.asarray(sequence.depth[t]) * 0.1)
    save_tum(guess / "poses.txt", np.arange(float(sequence.num_frames)), sequence.c2w)
    file = tmp_path / "result.json"
    words = ["evaluate", "synthetic", "--predictions", str(tmp_path / "predictions"), "--quiet"]
    assert main([*words, "--sequences", sequence.name, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["mean"]["abs_rel"] < 1e-3
    assert result["mean"]["coverage"] > 0.999
    assert result["template"]["abs_rel"] > 0.05
    assert 0 < result["template"]["delta_125"] < 1
    assert set(result["static"]) == {"ate", "rpe_trans", "rpe_rot_deg", "rot_deg", "median"}
    assert len(result["definition_sha256"]) == 64


def test_model_options_and_fusion_reach_the_run(folders, tmp_path, monkeypatch):
    from geo4d.evaluation import run as evaluation

    seen = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, **keywords: seen.append(args[2]) or {})
    monkeypatch.setattr("geo4d.evaluation.tables.result_table", lambda *args, **keywords: None)
    monkeypatch.setattr("geo4d.evaluation.tables.baseline_table", lambda *args: None)
    monkeypatch.setattr("geo4d.evaluation.tables.confidence_table", lambda *args: None)
    root, _ = folders
    words = ["evaluate", "folder", "--root", str(root), "--quiet"]
    assert (
        main([*words, "--model-option", "height=512", "--model-option", "width=640", "--fusion", "published"])
        == 0
    )
    assert dict(seen[0].model_options) == {"height": 512, "width": 640}
    assert seen[0].model_settings["fusion"] == "published"
    assert main(words) == 0
    assert "fusion" not in seen[1].model_settings


def test_options_of_a_model_are_refused_with_predictions(folders, capsys):
    root, predictions = folders
    words = ["evaluate", "folder", "--root", str(root), "--predictions", str(predictions)]
    assert main([*words, "--fusion", "published"]) == 2
    assert "--fusion" in capsys.readouterr().err
    assert main([*words, "--model-option", "height=512"]) == 2
