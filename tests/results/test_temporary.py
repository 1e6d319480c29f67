import subprocess
import sys
from pathlib import Path

import numpy as np

from geo4d.results.temporary import TemporaryFolder
from tests.support.stored import run_once


def test_temporary_result_lives_as_long_as_its_arrays():
    import gc

    result = run_once(None)
    depth, folder = result.depth, Path(result.depth._path)
    del result
    gc.collect()
    assert np.isfinite(depth[0][1]).all()
    del depth
    gc.collect()
    assert not folder.exists()


def test_temporary_results_of_killed_processes_go_when_the_next_one_is_made(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "import os; from geo4d.results.temporary import TemporaryFolder\n"
        "folder = TemporaryFolder()\n"
        "(folder.path / 'result').mkdir()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (tmp_path / "geo4d-mine").mkdir()  # no lock of ours in it
    (tmp_path / "geo4d-mine" / "precious").write_text("mine")
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    living = TemporaryFolder()
    TemporaryFolder()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["geo4d-mine", living.path.name])
    assert (tmp_path / "geo4d-mine" / "precious").exists()
