"""A disk that fills up while something is written: path and bytes are named, and nothing appears."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geo4d.errors import OutputError
from geo4d.formats.files import all_or_nothing, disk_errors, new_file, new_folder

_ALL_FORMATS = """
import json, resource, sys
from pathlib import Path
import numpy as np
from geo4d.errors import OutputError
from geo4d.export import FORMATS, save
from geo4d.types import Reconstruction
rng = np.random.default_rng(0)
k = np.tile(np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]], np.float32), (5, 1, 1))
scene = Reconstruction(
    depth=np.full((5, 24, 32), 2, np.float32), confidence=np.ones((5, 24, 32), np.float32), intrinsics=k,
    times_s=np.arange(5) / 25, source_frames=np.arange(5), scale_kind="scale",
    c2w=np.tile(np.eye(4, dtype=np.float32), (5, 1, 1)), rgb=rng.random((5, 24, 32, 3)).astype(np.float32),
)
place = Path(sys.argv[1])
endings = {name: format.suffixes[0] for name, format in FORMATS.items() if format.suffixes and name not in ("exr", "png")}
found = {}
for name in FORMATS:
    for target in {place / "above" / f"file{endings.get(name, '')}", place / "above" / "folder"}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, -1))
        try:
            save(scene, target, name)
            said = "written"
        except OutputError as error:
            said = str(error)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        found[f"{name} {target.name}"] = [said, str(target), sorted(p.name for p in place.iterdir())]
print(json.dumps(found))
"""


def test_every_export(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", _ALL_FORMATS, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 22
    for name, (said, target, left) in found.items():
        if not said.startswith("MissingExtraError"):  # usd and rrd, where their extras are not installed
            assert said.startswith(f"cannot write {target}: the disk is full; at most "), (name, said)
            assert "bytes are needed" in said
        assert left == [], (name, left)


@pytest.mark.parametrize("make", [new_file, new_folder, lambda path: all_or_nothing(path, 1)])
def test_folders_that_were_made_go_again(tmp_path, make):
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError), make(tmp_path / "there" / "a" / "b" / "c"):
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_several_files_appear_together_or_not_at_all(tmp_path):
    with all_or_nothing(tmp_path / "k.txt", 10) as place:
        place.write_text("poses")
        place.with_suffix(".json").write_text("times")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "k.txt": "poses",
        "k.json": "times",
    }

    with pytest.raises(OutputError, match="pass --overwrite"), all_or_nothing(tmp_path / "k.txt", 10):
        raise AssertionError("refused before the work")

    def fill() -> None:
        with all_or_nothing(tmp_path / "k.txt", 10, overwrite=True) as place:
            place.write_text("new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="10 bytes are needed"):
        fill()
    assert (tmp_path / "k.txt").read_text() == "poses"


def test_a_folder_with_files_is_joined_only_by_formats_of_single_files(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("x")
    with all_or_nothing(tmp_path / "folder", 1, into_folder=True) as place:
        place.mkdir()
        (place / "a.npz").write_text("y")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["a.npz", "mine"]
    with pytest.raises(OutputError, match="exists already"), all_or_nothing(tmp_path / "folder", 1):
        raise AssertionError("refused before the work")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_cause_counts_not_its_wrapping(tmp_path, number):
    wrapped = OutputError("something")
    wrapped.__cause__ = OSError(number, "full")
    says = r"at most 77 bytes are needed, \d+ were free; it is kept"
    with pytest.raises(OutputError, match=says), disk_errors(tmp_path / "x", 77, "it is kept"):
        raise wrapped


def test_other_errors_are_not_blamed_on_the_disk(tmp_path, monkeypatch):
    for error in (ValueError("x"), RuntimeError("x"), OSError(errno.EIO, "broken"), OutputError("exists")):
        with pytest.raises(type(error)) as raised, disk_errors(tmp_path / "x", 77, ""):
            raise error
        assert raised.value is error
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(OutputError, match="disk is full"), disk_errors(tmp_path / "x", 77, ""):
        raise RuntimeError("a library's own words")
    with pytest.raises(ValueError, match="arguments"), disk_errors(tmp_path / "x", 77, ""):
        raise ValueError("arguments are no fault of the disk")
