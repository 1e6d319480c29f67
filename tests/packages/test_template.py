"""The template package, built and installed by pip as a user does it, and used by the command: one of each kind."""

import csv
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import geo4d

FRAMES = 10


@pytest.fixture(scope="module")
def command(tmp_path_factory, repository):
    """``geo4d`` in a process that sees the installed template."""
    folder = tmp_path_factory.mktemp("template")
    copy = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    shutil.copytree(repository / "examples/plugin", folder / "plugin", ignore=copy)
    site = folder / "site"
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(folder / "plugin")], check=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(repository), str(site)]),
        "OMP_NUM_THREADS": "1",
    }

    def run(*words: object, fails: int = 0) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "geo4d", *map(str, words)], env=environment, capture_output=True, text=True
        )
        assert ran.returncode == fails, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    return run


@pytest.fixture(scope="module")
def pictures():
    """A textured wall that slides by."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(
        rng.uniform(0, 255, (30, 60, 3)).astype(np.float32), (240, 120), interpolation=cv2.INTER_CUBIC
    )
    wall = np.clip(wall, 0, 255).astype(np.uint8)
    return np.stack([wall[:96, 4 * t : 4 * t + 160] for t in range(FRAMES)])


def test_one_of_each(command, pictures, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for t, picture in enumerate(pictures):
        cv2.imwrite(str(frames / f"{t:03d}.png"), picture)
    out = tmp_path / "out"
    said = command("reconstruct", frames, "-o", out, "--model", "brightness", "--fps", 10, "--keep-going",
                   "--model-option", "max_side=96")  # fmt: skip
    assert "brightness: depth of single pictures under the cameras from tracks [Apache-2.0]" in said
    result = geo4d.load(out)
    assert result.provenance["model"]["name"] == "brightness"

    command("pose", out, "-o", tmp_path / "posed", "--tracks", "blocks", "--keep-going")
    out = tmp_path / "posed"
    command("export", out, "--format", "csv", "-o", tmp_path / "path.csv", "--scale", 2, "--up", "z")
    text = (tmp_path / "path.csv").read_text()
    rows = np.array([row for row in csv.reader(text.splitlines()) if row[0][0].isdigit()], float)
    posed = np.asarray(geo4d.load(out).c2w)
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    np.testing.assert_allclose(rows[:, 1:4], 2 * posed[:, :3, 3] @ turn.T, atol=1e-6)
    np.testing.assert_allclose(rows[:, 4:], posed[:, :3, 2] @ turn.T, atol=1e-6)
    assert "times 2" in text


def test_its_reader_is_a_data_set(command, pictures, tmp_path):
    folder = tmp_path / "data" / "wall"
    folder.mkdir(parents=True)
    np.save(folder / "rgb.npy", pictures)
    depth = np.full(pictures.shape[:3], 2.0, np.float32)
    depth[:, :5] = 0
    np.save(folder / "intrinsics.npy", np.array([[150, 0, 80], [0, 150, 48], [0, 0, 1.0]]))
    np.save(folder / "depth.npy", depth)
    said = command("data", "check", tmp_path / "data")
    assert "clips as numpy arrays, 1 sequences" in said
    assert "94.8% of the pixels have depth" in said
    assert "numpy-clip" in command("data", "check", frames_only(tmp_path), "--reader", "nothing", fails=2)


def frames_only(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder
