"""The plug-in for TCMonoDepth-small, installed as a user does it, with weights drawn at random."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

PACKAGE = Path(__file__).parent / "tcmonodepth"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE / "src"))
    import geo4d_tcmonodepth

    yield geo4d_tcmonodepth
    sys.modules.pop("geo4d_tcmonodepth", None)


def random_weights(module, path: Path) -> Path:
    torch.manual_seed(0)
    state = module.Network().state_dict()
    torch.save({**state, "decoder.final2.0.bias": torch.zeros(1)}, path)
    return path


def test_the_layers_are_those_of_the_file(module, tmp_path):
    """Against the same network written as plain functions of the file's tensors."""
    from benchmarks.peer import network

    path = random_weights(module, tmp_path / "small.pt")
    x = torch.rand(2, 3, 64, 96)
    made = module.Network()
    made.load_state_dict({k: v for k, v in torch.load(path, weights_only=True).items() if "final2" not in k})
    torch.testing.assert_close(made.eval()(x), network(path)(x), rtol=1e-4, atol=1e-5)


def test_wrong_weights_are_told(module, tmp_path):
    from geo4d.errors import CheckpointError

    with pytest.raises(CheckpointError, match="expected --weights FILE"):
        module.load("tcmonodepth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no TCMonoDepth-small"):
        module.load("tcmonodepth", weights=tmp_path / "other.pt")


def test_installed_it_is_a_model_of_the_command(module, tmp_path, repository):
    shutil.copytree(PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    site = tmp_path / "site"
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(tmp_path / "package")], check=True)
    weights = random_weights(module, tmp_path / "small.pt")
    frames = tmp_path / "frames"
    frames.mkdir()
    import cv2

    picture = cv2.resize(np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32), (110, 70))
    for t in range(4):
        cv2.imwrite(str(frames / f"{t}.png"), picture[:64, 3 * t : 3 * t + 96])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(repository), str(site)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        "-m",
        "geo4d",
        "reconstruct",
        str(frames),
        "-o",
        str(tmp_path / "out"),
        "--keep-going",
    ]
    options = [
        "--model",
        "tcmonodepth",
        "--weights",
        str(weights),
        "--fps",
        "10",
        "--model-option",
        "max_side=96",
    ]
    ran = subprocess.run([*command, *options], check=True, env=environment, capture_output=True, text=True)
    assert "tcmonodepth: TCMonoDepth-small under the cameras from tracks [MIT]" in ran.stdout
