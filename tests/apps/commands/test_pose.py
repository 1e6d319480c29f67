"""What ``geo4d pose`` hands on and says; the cameras themselves are judged in ``tests/run/test_repose.py``."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geo4d.apps.cli import main
from geo4d.apps.commands.pose import PoseOptions, run
from geo4d.errors import DoubtfulResult
from geo4d.evidence import mask_finders
from geo4d.results.reader import load_result
from geo4d.run import repose as repose_module
from geo4d.tracks import sources
from tests.support.stored import write_result


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the solver and the tracker are called with; the solver answers with three shots' words."""
    write_result(tmp_path / "before")
    calls: dict[str, Any] = {"reliable": np.ones(3, bool)}
    real = inspect.signature(repose_module.repose)
    told = {
        "shots": [{"statement": "frames 0 to 2: parallax"}],
        "trajectory_scale": 2.5,
        "metres_per_unit": [0.5, 0.25],
    }

    def solve(*words: Any, **rest: Any) -> Any:
        calls["repose"] = real.bind(*words, **rest).arguments  # an unknown name would be an error here too
        before = load_result(tmp_path / "before")
        return dataclasses.replace(before, diagnostics={"pose": told}, reliable=calls["reliable"])

    def make(name: str, weights: Any, *, picture_size: Any) -> str:
        calls["tracks"] = (name, weights, picture_size)
        return "a tracker"

    monkeypatch.setattr(repose_module, "repose", solve)
    monkeypatch.setattr(sources, "track_maker", make)
    return calls


def test_every_option_reaches_the_solver(asked: dict[str, Any], tmp_path: Path) -> None:
    assert main([
        "pose", str(tmp_path / "before"), "-o", str(tmp_path / "after"),
        "--mask", "m", "--mask-format", "xmem", "--mask-radius", "0.01",
        "--intrinsics", "7", "8", "4", "3", "--trajectory", "t.txt", "--trajectory-unit", "unknown",
        "--time-offset", "1.5", "--per-frame-scale", "--objective", "published-refined", "--depth-weight", "0.1",
        "--tracks", "disk-lightglue", "--track-weights", "a", "b", "--track-size", "640", "480", "--overwrite",
    ]) == 0  # fmt: skip
    assert asked["repose"] == {
        "result": tmp_path / "before",
        "output": tmp_path / "after",
        "mask": Path("m"),
        "mask_format": "xmem",
        "mask_radius": 0.01,
        "mask_finder": None,
        "intrinsics": (7.0, 8.0, 4.0, 3.0),
        "trajectory": Path("t.txt"),
        "trajectory_unit": "unknown",
        "time_offset": 1.5,
        "per_frame_scale": True,
        "tracker": "a tracker",
        "objective": "published-refined",
        "depth_weight": 0.1,
        "overwrite": True,
    }
    # WIDTH HEIGHT on the command line, (height, width) inside
    assert asked["tracks"] == ("disk-lightglue", (Path("a"), Path("b")), (480, 640))


def test_every_parameter_of_the_solver_has_its_option_with_the_same_default() -> None:
    options = {field.name: field.default for field in dataclasses.fields(PoseOptions)}
    for name, parameter in inspect.signature(repose_module.repose).parameters.items():
        if name not in ("result", "output", "tracker", "mask_finder"):
            assert options[name] == parameter.default, name


def test_masks_are_redrawn_by_the_network_in_the_folder(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_finders, "Sam2Finder", lambda folder: ("SAM 2 of", folder))
    run(PoseOptions(tmp_path / "before", tmp_path / "after", mask_weights=Path("sam")))
    assert asked["repose"]["mask_finder"] == ("SAM 2 of", Path("sam"))


def test_tracks_in_files_count_in_the_source_unless_told(asked: dict[str, Any], tmp_path: Path) -> None:
    assert run(PoseOptions(tmp_path / "before", tmp_path / "after")) == 0
    assert asked["tracks"] == ("klt", (), (6, 8))


def test_what_was_found_is_said(asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(PoseOptions(tmp_path / "before", tmp_path / "after"))
    assert capsys.readouterr().out.splitlines() == [
        "frames 0 to 2: parallax",
        "trajectory scaled by 2.5",
        "depth of scene 0 scaled by 0.5 m",
        "depth of scene 1 scaled by 0.25 m",
        f"wrote {tmp_path / 'after'}",
        "verdict: usable",
    ]


def test_a_doubtful_result_is_an_exit_code_of_its_own(asked: dict[str, Any], tmp_path: Path) -> None:
    asked["reliable"] = np.zeros(3, bool)
    with pytest.raises(DoubtfulResult, match="--keep-going accepts it"):
        run(PoseOptions(tmp_path / "before", tmp_path / "after"))
    assert run(PoseOptions(tmp_path / "before", tmp_path / "after", keep_going=True)) == 0


@pytest.mark.parametrize("wrong", [{"time_offset": 1.0}, {"trajectory_unit": "unknown"}])
def test_words_about_a_trajectory_need_one(
    asked: dict[str, Any], tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="expected --trajectory with"):
        run(PoseOptions(tmp_path / "before", tmp_path / "after", **wrong))
    assert "repose" not in asked
