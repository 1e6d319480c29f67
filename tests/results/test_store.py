import os
import subprocess
import sys

import pytest

from geo4d.errors import OutputError
from geo4d.results.places import run_folder
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace
from tests.support.stored import SETTINGS, begin, run_once, write_result


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
