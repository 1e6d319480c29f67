import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr

from geo4d.errors import OutputError
from geo4d.results.layout import frame_bytes, plain
from geo4d.results.manifest import ARRAYS, MANIFEST, is_result
from geo4d.results.places import run_folder
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace, check_output
from geo4d.results.writer import StoreWriter
from geo4d.types import FrameMaps

SETTINGS = {"seed": 0, "model": {"name": "truth", "weights": "ab"}}
MANIFEST_REST = {"scale_kind": "scale", "source": {"name": "array", "sha256": "0"}, "provenance": {"seed": 0}}


def frame(t, size=(6, 8)):
    depth = torch.arange(size[0] * size[1]).reshape(size).float() + 1 + t
    depth[0, 0], depth[0, 1] = torch.nan, torch.inf
    return FrameMaps(t, depth, torch.full(size, 0.25), torch.full(size, 0.5))


def write_result(folder, num_frames=3, precision="float32", with_poses=True):
    writer = StoreWriter(folder, num_frames, (6, 8), precision)
    for t in range(num_frames):
        writer.write(frame(t), np.full((6, 8, 3), 10 * t, np.uint8))
    per_frame = {
        "intrinsics": np.tile(np.diag([7.0, 7.0, 1.0]), (num_frames, 1, 1)),
        "times_s": np.arange(num_frames) / 10,
        "source_frames": np.arange(num_frames),
        "scene": np.zeros(num_frames, np.int64),
        "reliable": np.ones(num_frames, bool),
    }
    if with_poses:
        per_frame["c2w"] = np.tile(np.eye(4), (num_frames, 1, 1))
    writer.finish(per_frame, MANIFEST_REST, {"seconds": {"predict": 1.0}, "worst": float("nan")})
    return folder


def begin(output):
    """A run that dies after its first window."""
    work = Workspace(output, SETTINGS).__enter__()
    (work.windows / "window_000000_try0.zarr.zip").write_text("done")
    work.__exit__(RuntimeError, RuntimeError("killed"), None)


def run_once(output, **options):
    with Workspace(output, SETTINGS, **options) as work:
        write_result(work.result)
        return work.publish()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0), ("float16", 5e-4)])
def test_what_is_written_comes_back(tmp_path, precision, tolerance):
    result = load_result(write_result(tmp_path / "r", precision=precision))
    depth = result.depth[1]
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, frame(1).depth.numpy(), rtol=tolerance)
    assert np.isnan(depth[0, 0])
    assert np.isposinf(depth[0, 1])
    assert result.size == (6, 8)
    assert result.depth[:, 2, 3].shape == (3,)
    assert result.disparity[0][0, 1] == 0
    assert float(result.rgb[2][0, 0, 0]) == pytest.approx(20 / 255)
    assert float(result.dynamic[0][0, 0]) == 0.5
    assert result.has_poses
    assert result.diagnostics["worst"] is None
    assert not load_result(write_result(tmp_path / "n", with_poses=False)).has_poses


def test_it_is_plain_zarr_with_a_readable_manifest(tmp_path):
    folder = write_result(tmp_path / "r")
    group = zarr.open_group(folder / ARRAYS, mode="r")
    assert group["depth"].chunks == (1, 6, 8)
    assert "sky" in group["depth"].attrs["meaning"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["num_frames"] == 3
    assert manifest["size"] == {"height": 6, "width": 8}
    assert "OpenCV" not in manifest["arrays"]["depth"]
    assert set(manifest["arrays"]) >= {"depth", "confidence", "dynamic", "c2w", "intrinsics", "times_s"}
    size = sum(path.stat().st_size for path in (folder / ARRAYS / "depth").iterdir())
    assert size <= 3 * frame_bytes((6, 8), "float32")


def test_depth_beyond_half_precision_does_not_become_sky(tmp_path):
    writer = StoreWriter(tmp_path / "r", 1, (1, 2), "float16")
    writer.write(FrameMaps(0, torch.tensor([[1e6, torch.inf]]), torch.ones(1, 2)))
    stored = zarr.open_group(tmp_path / "r" / ARRAYS, mode="r")["depth"][0]
    assert stored[0, 0] == 65504
    assert np.isposinf(stored[0, 1])


def test_incomplete_and_foreign_folders_are_refused(tmp_path):
    folder = write_result(tmp_path / "r")
    (folder / ARRAYS / "depth" / "c.1.0.0").unlink()
    with pytest.raises(OutputError, match="1 of 3 pieces of depth are missing"):
        load_result(folder)
    with pytest.raises(OutputError, match="found nothing"):
        load_result(tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match="not a geo4d result"):
        load_result(tmp_path / "other")
    newer = write_result(tmp_path / "newer")
    manifest = json.loads((newer / MANIFEST).read_text())
    (newer / MANIFEST).write_text(json.dumps({**manifest, "version": 99, "geo4d": "9.9"}))
    with pytest.raises(OutputError, match=r"format 99, written by geo4d 9\.9; .* update geo4d"):
        load_result(newer)


def test_damaged_chunk_is_an_error_not_a_value(tmp_path):
    folder = write_result(tmp_path / "r")
    chunk = folder / ARRAYS / "depth" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[20] ^= 255
    chunk.write_bytes(data)
    result = load_result(folder)
    assert np.isfinite(result.depth[0][1]).all()
    with pytest.raises(OutputError, match=r"c\.1\.0\.0 is damaged"):
        result.depth[1]


def test_missing_frames_are_found_before_the_result_appears(tmp_path):
    writer = StoreWriter(tmp_path / "r", 3, (6, 8), "float32")
    writer.write(frame(0))
    with pytest.raises(OutputError, match="only 1 of 3 frames"):
        writer.finish({}, MANIFEST_REST, {})
    assert not is_result(tmp_path / "r")


def test_result_appears_whole_and_the_work_folder_goes(tmp_path):
    result = run_once(tmp_path / "deep" / "out")
    assert result.num_frames == 3
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out"]


def test_existing_output_is_kept_unless_told(tmp_path):
    run_once(tmp_path / "out")
    with pytest.raises(OutputError, match="--overwrite"):
        run_once(tmp_path / "out")
    assert run_once(tmp_path / "out", overwrite=True).num_frames == 3
    with pytest.raises(OutputError, match="complete already"):
        run_once(tmp_path / "out", resume=True)
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.jpg").write_text("x")
    with pytest.raises(OutputError, match="not a geo4d result"):
        check_output(foreign, overwrite=True)
    assert (foreign / "a.jpg").exists()
    with pytest.raises(OutputError, match="not a folder"):
        check_output(foreign / "a.jpg", overwrite=True)
    with pytest.raises(OutputError, match="not a folder that you may write to"):
        check_output(foreign / "a.jpg" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_old_result_survives_a_failing_replacement(tmp_path):
    run_once(tmp_path / "out")
    with pytest.raises(RuntimeError), Workspace(tmp_path / "out", SETTINGS, overwrite=True):
        raise RuntimeError("something breaks")
    assert load_result(tmp_path / "out").num_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED_WHILE_PUBLISHING = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_store import SETTINGS, write_result
from geo4d.results.workspace import Workspace
renames = 0
replace = Path.replace
def dying(self, target):
    global renames
    if self.name in ("out", "result") and publishing:
        if renames == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        renames += 1
    return replace(self, target)
publishing = False
Path.replace = dying
with Workspace(Path(sys.argv[1]), SETTINGS, overwrite=True) as work:
    (work.windows / "window_000000_try0.zarr.zip").write_text("x")
    write_result(work.result, num_frames=5)
    publishing = True
    work.publish()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("renames", "frames"), [(0, 3), (1, 3), (2, 5)])
def test_kill_before_between_and_behind_the_two_renames_loses_nothing(tmp_path, renames, frames):
    output, folder = tmp_path / "out", run_folder(tmp_path / "out")
    run_once(output)
    (output / "notes.txt").write_text("mine")
    arguments = [
        sys.executable,
        "-c",
        KILLED_WHILE_PUBLISHING,
        str(output),
        str(renames),
        os.path.dirname(__file__),
    ]
    killed = subprocess.run(arguments, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert folder.exists()
    with pytest.raises(OutputError, match="exists; choose another output"):
        check_output(output)  # the next start of any run tidies up
    assert load_result(output).num_frames == frames
    assert (output / "notes.txt").read_text() == "mine"
    assert folder.exists() == (frames == 3)  # the windows of a run that did not finish are kept
    with Workspace(output, SETTINGS, resume=frames == 3, overwrite=frames == 5) as work:
        assert len(list(work.windows.iterdir())) == (1 if frames == 3 else 0)
        write_result(work.result, num_frames=5)
        work.publish()
    assert load_result(output).num_frames == 5
    assert (output / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_unfinished_run_is_resumed_only_with_the_same_settings(tmp_path):
    output = tmp_path / "out"
    begin(output)
    assert not output.exists()
    with pytest.raises(OutputError, match=r"1 windows done.*--resume"):
        run_once(output)
    with (
        pytest.raises(OutputError, match=r"model.weights: was ab, is cd"),
        Workspace(output, {"seed": 0, "model": {"name": "truth", "weights": "cd"}}, resume=True),
    ):
        pass
    with Workspace(output, SETTINGS, resume=True) as work:
        assert [path.name for path in work.windows.iterdir()] == ["window_000000_try0.zarr.zip"]
        write_result(work.result)
        assert work.publish(keep_windows=True).num_frames == 3
    assert (output / "windows" / "window_000000_try0.zarr.zip").exists()


def test_starting_again_forgets_everything_of_the_unfinished_run(tmp_path):
    begin(tmp_path / "out")
    (run_folder(tmp_path / "out") / "windows" / "motion.zarr.zip").write_text("of other frames")
    with Workspace(tmp_path / "out", SETTINGS, overwrite=True) as work:
        names = sorted(path.name for path in work.folder.iterdir())
        assert names == ["geo4d-run", "lock", "settings.json", "windows"]
        assert list(work.windows.iterdir()) == []


def test_a_run_that_finished_no_window_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), Workspace(tmp_path / "out", SETTINGS):
        raise RuntimeError("early")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_on_one_output(tmp_path):
    with Workspace(tmp_path / "out", SETTINGS) as work:
        with pytest.raises(OutputError, match=f"another run .process {os.getpid()}.*is writing"):
            run_once(tmp_path / "out", overwrite=True)
        write_result(work.result)
        assert work.publish().num_frames == 3
    assert load_result(tmp_path / "out").num_frames == 3


def test_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from geo4d.results.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1]), {'seed': 0}) as w:\n"
        "    (w.windows / 'window_000000_try0.zarr.zip').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert process.returncode == -9
    with Workspace(tmp_path / "out", {"seed": 0}, resume=True) as work:
        assert len(list(work.windows.iterdir())) == 1
        write_result(work.result)
        work.publish()


def test_full_disk_is_one_message_and_leaves_no_half_result(tmp_path, monkeypatch):
    run_once(tmp_path / "out")
    real = StoreWriter.write

    def full(self, maps, rgb=None):
        if maps.frame_index == 1:
            monkeypatch.setattr("zarr.storage.LocalStore.set", no_space)
        real(self, maps, rgb)

    async def no_space(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StoreWriter, "write", full)
    with pytest.raises(OutputError, match="disk is full"):
        run_once(tmp_path / "out", overwrite=True)
    monkeypatch.undo()
    assert load_result(tmp_path / "out").num_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_temporary_result_lives_as_long_as_its_arrays():
    import gc
    from pathlib import Path

    result = run_once(None)
    depth, folder = result.depth, Path(result.depth._path)
    del result
    gc.collect()
    assert np.isfinite(depth[0][1]).all()
    del depth
    gc.collect()
    assert not folder.exists()


def test_plain_json():
    value = plain({"a": np.float32("nan"), "b": torch.ones(2), 3: (1, True), "c": {"x"}})
    assert json.dumps(value) == '{"a": null, "b": [1.0, 1.0], "3": [1, true], "c": ["x"]}'
