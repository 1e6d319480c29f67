"""Formats of other packages, found by their entry points."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import geo4d.export.plugins as plugins
from geo4d.apps.cli import main
from geo4d.errors import PluginError
from geo4d.export import FORMATS, ExportConfig, Format, find_format, format_names, save


def offer(folder, name: str, value: str, code: str, monkeypatch) -> None:
    """A package on the path with one module and one entry point, as an installer leaves it."""
    info = folder / f"{name}_pack-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}-pack\nVersion: 1.2\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(f"[geo4d.exports]\n{name} = {value}\n", encoding="utf-8")
    (folder / f"{name}_pack.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))


GOOD = """
from geo4d.export import Format
def write(reconstruction, path, config):
    path.write_text(str(reconstruction.num_frames))
    return [path]
FORMAT = Format(write, "the number of frames", (".count",), file_name="frames.count")
"""


def test_a_format_of_another_package(tmp_path, shot, monkeypatch) -> None:
    offer(tmp_path / "site", "count", "count_pack:FORMAT", GOOD, monkeypatch)
    assert format_names() == [*FORMATS, "count"]
    (path,) = save(shot(), tmp_path / "a.count", "count")
    assert path.read_text() == "4"
    assert [file.name for file in save(shot(), tmp_path / "folder", "count")] == ["frames.count"]


@pytest.mark.parametrize(
    ("value", "code", "says"),
    [
        ("bad_pack:FORMAT", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("bad_pack:FORMAT", "raise SystemError('odd')", "SystemError: odd"),
        ("bad_pack:OTHER", GOOD, "OTHER"),
        ("bad_pack:write", GOOD, "to be a geo4d.export.Format, got function"),
    ],
)
def test_a_broken_package_is_one_error_that_names_it(
    tmp_path, shot, monkeypatch, capsys, value, code, says
) -> None:
    offer(tmp_path / "site", "bad", value, code, monkeypatch)
    sys.modules.pop("bad_pack", None)
    with pytest.raises(PluginError, match=r"bad-pack 1\.2") as raised:
        find_format("bad")
    assert says in str(raised.value)
    sys.modules.pop("bad_pack", None)
    assert main(["export", "--help"]) == 0  # the others are listed, and this one as broken
    text = " ".join(capsys.readouterr().out.split())
    assert "broken" in text
    assert "points, colours, confidence; .ply" in text
    save(shot(), tmp_path / "a.npz", "npz")  # and it is in nobody's way
    assert not (tmp_path / "a.bad").exists()


def test_names_of_ours_stay_ours(tmp_path, shot, monkeypatch, caplog) -> None:
    offer(tmp_path / "site", "ply", "ply_pack:FORMAT", GOOD, monkeypatch)
    assert find_format("ply") is FORMATS["ply"]
    assert format_names() == list(FORMATS)
    assert "ply-pack 1.2 offers a format 'ply', which geo4d has already" in caplog.text


def test_an_entry_point_without_a_package_still_has_a_name() -> None:
    with pytest.raises(PluginError, match="of the package unknown"):
        plugins.load_plugin(EntryPoint("x", "no_such_module:x", "geo4d.exports"))


def test_the_template_package_installs_and_exports(tmp_path, repository, shot) -> None:
    """As a user does it: pip builds and installs the template, and a new process exports by it."""
    shutil.copytree(repository / "examples/plugin", tmp_path / "plugin")
    site = tmp_path / "site"
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(tmp_path / "plugin")], check=True)
    np.savez(tmp_path / "c2w.npz", c2w=shot().c2w, times_s=shot().times_s)
    script = """
import sys
import numpy as np
from geo4d.export import ExportConfig, format_names, save
from geo4d.types import Reconstruction
values = np.load("c2w.npz")
maps = np.ones((4, 6, 8), np.float32)
result = Reconstruction(maps, maps, np.tile(np.eye(3), (4, 1, 1)), values["times_s"], np.arange(4), c2w=values["c2w"])
assert "csv" in format_names()
save(result, "a.csv", "csv", ExportConfig(scale=2, up="z"))
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(repository), str(site)]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    text = (tmp_path / "a.csv").read_text()
    rows = np.loadtxt([line for line in text.splitlines() if line[0].isdigit()], delimiter=",")
    c2w = shot().c2w
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    np.testing.assert_allclose(rows[:, 0], shot().times_s)
    np.testing.assert_allclose(rows[:, 1:4], 2 * c2w[:, :3, 3] @ turn.T, atol=1e-9)
    np.testing.assert_allclose(rows[:, 4:], c2w[:, :3, 2] @ turn.T, atol=1e-9)
    assert "times 2" in text


def test_formats_are_described(shot, tmp_path) -> None:
    assert all(isinstance(one, Format) and one.holds for one in FORMATS.values())
    suffixes = [suffix for one in FORMATS.values() for suffix in one.suffixes if suffix != ".txt"]
    assert len(set(suffixes)) == len(suffixes)
    with pytest.raises(ValueError, match="expected one of npz, exr"):
        save(shot(), tmp_path / "x", "no-such-format", ExportConfig())
