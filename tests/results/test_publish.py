import subprocess
import sys
from pathlib import Path

import pytest

from geo4d.errors import OutputError
from geo4d.results.places import run_folder
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace, check_output
from tests.support.stored import SETTINGS, run_once, write_result


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
from tests.support.stored import SETTINGS, write_result
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
        str(Path(__file__).parents[2]),
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
