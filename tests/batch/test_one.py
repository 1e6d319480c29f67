"""One clip through a model that is held: the same result as a single run, and what is noted when it is not."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import geo4d
from geo4d.batch.one import confidence_median, load, run_clip
from geo4d.batch.task import Task
from geo4d.errors import OutputInUse
from geo4d.results.manifest import ARRAYS
from geo4d.results.workspace import Workspace
from tests.support import batch_stub as batches

SETTINGS = {"model": "stub", "output_size": "model", "tries": 0}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return batches.write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 12)


def once(video: Path, output: Path, loaded=None, **settings) -> dict:
    loaded = loaded or load({**SETTINGS, **settings})
    return run_clip(loaded, Task("a", str(video), str(output)), lambda *stage: None)


def arrays(folder: Path) -> dict[str, bytes]:
    group = zarr.open_group(folder / ARRAYS, mode="r")
    return {name: np.asarray(array[...]).tobytes() for name, array in group.arrays()}


def test_the_result_is_that_of_a_single_run_bit_for_bit(video, tmp_path) -> None:
    geo4d.reconstruct(video, tmp_path / "single", **SETTINGS)
    loaded = load(SETTINGS)
    other = batches.write_clip(tmp_path / "other.mp4", 6, seed=1)
    assert once(other, tmp_path / "before", loaded)["exit_code"] == 0  # nothing of it stays in the model
    note = once(video, tmp_path / "batch", loaded)
    assert note["state"] == "done"
    assert arrays(tmp_path / "single") == arrays(tmp_path / "batch")
    single, ours = geo4d.load(tmp_path / "single"), geo4d.load(tmp_path / "batch")
    assert single.provenance == ours.provenance
    assert note["frames"] == 12
    assert note["verdict"] == "usable"
    assert note["reliable_share"] == note["usable_share"] == 1
    whole = np.asarray(single.confidence[:])[~np.isnan(np.asarray(single.depth[:]))]
    assert note["confidence_median"] == pytest.approx(float(np.median(whole)), abs=1e-6)
    assert note["source_sha256"] == single.provenance["source"]["sha256"]


def test_a_complete_result_is_found_again_and_a_changed_source_is_not(video, tmp_path) -> None:
    source = tmp_path / "a.mp4"
    shutil.copy(video, source)
    assert once(source, tmp_path / "out")["state"] == "done"
    os.utime(source, (1, 1))
    assert once(source, tmp_path / "out")["state"] == "unchanged"
    batches.write_clip(source, 6, seed=2)
    note = once(source, tmp_path / "out")
    assert (note["state"], note["frames"]) == ("done", 6)
    assert once(source, tmp_path / "out", seed=1)["state"] == "done"  # other settings


def test_a_damaged_result_is_made_anew(video, tmp_path) -> None:
    once(video, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / ARRAYS / "depth")
    note = once(video, tmp_path / "out")
    assert (note["state"], note["exit_code"]) == ("done", 0)
    assert any("made anew" in warning for warning in note["warnings"])


def test_an_unfinished_run_is_gone_on_with_or_forgotten_when_its_source_changed(video, tmp_path) -> None:
    source = tmp_path / "a.mp4"
    shutil.copy(video, source)
    loaded = load(SETTINGS)
    seen = []

    def stop(stage, done, total):
        if stage == "predict":
            seen.append(done)
            if len(seen) == 1:
                raise SystemExit(143)

    task = Task("a", str(source), str(tmp_path / "out"))
    with pytest.raises(SystemExit):
        run_clip(loaded, task, stop)
    windows = tmp_path / ".out.geo4d-run" / "windows"
    assert len(list(windows.glob("window_*"))) == 1
    batches.write_clip(source, 6, seed=2)
    assert run_clip(loaded, task, stop)["frames"] == 6


def test_failures_are_told_apart(video, tmp_path, monkeypatch) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    note = once(text, tmp_path / "bad")
    assert (note["state"], note["exit_code"]) == ("failed", 3)
    assert "text" in note["reason"]
    assert once(tmp_path / "missing.mp4", tmp_path / "bad")["state"] == "failed"
    (tmp_path / "full").touch()
    note = once(video, tmp_path / "out", model_options={"full": str(tmp_path / "full")})
    assert (note["state"], note["exit_code"]) == ("no room", 4)
    with Workspace(tmp_path / "held", {}):
        note = once(video, tmp_path / "held")
    assert (note["state"], note["exit_code"]) == ("busy", OutputInUse.exit_code)
    loaded = load(SETTINGS)
    monkeypatch.setattr(type(loaded.predictor), "predict", lambda *a, **k: 1 / 0)
    note = once(video, tmp_path / "bug", loaded)
    assert (note["state"], note["exit_code"]) == ("tried", 70)


def test_a_doubtful_result_is_done_with_its_exit_code(video, tmp_path) -> None:
    loaded = load({**SETTINGS, "model_options": {"nan_windows": [0]}})
    note = once(video, tmp_path / "out", loaded)
    assert (note["state"], note["exit_code"]) == ("done", 9)
    assert note["verdict"].startswith("doubtful")
    kept = run_clip(loaded, Task("a", str(video), str(tmp_path / "out"), keep_going=True), lambda *s: None)
    assert (kept["state"], kept["exit_code"]) == ("unchanged", 0)


def test_warnings_of_a_run_go_into_its_note(video, tmp_path, capsys) -> None:
    before = logging.getLogger().handlers[:]
    note = once(video, tmp_path / "out", model_options={"nan_windows": [0]})
    assert any("not finite" in warning for warning in note["warnings"])
    assert "not finite" not in capsys.readouterr().err
    assert logging.getLogger().handlers == before


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown setting"):
        load({"model": "stub", "strid": 2})


def test_no_valid_pixel_has_no_confidence(video, tmp_path) -> None:
    once(video, tmp_path / "out")
    result = geo4d.load(tmp_path / "out")
    assert confidence_median(result) > 0
    assert confidence_median(replace(result, depth=np.full(result.depth.shape, np.nan, np.float32))) is None
