"""Formats of other packages, found by their entry points."""

import sys
from importlib.metadata import EntryPoint

import pytest

import geo4d.export.plugins as plugins
from geo4d.apps.cli import main
from geo4d.errors import PluginError
from geo4d.export import FORMATS, ExportConfig, Format, find_format, format_names, save
from tests.support.packages import offer

GOOD = """
from geo4d.export import Format
def write(reconstruction, path, config):
    path.write_text(str(reconstruction.num_frames))
    return [path]
FORMAT = Format(write, "the number of frames", (".count",), file_name="frames.count")
"""


def test_a_format_of_another_package(tmp_path, shot, monkeypatch) -> None:
    offer(tmp_path / "site", "geo4d.exports", "count", "count_pack:FORMAT", GOOD, monkeypatch)
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
    offer(tmp_path / "site", "geo4d.exports", "bad", value, code, monkeypatch)
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
    offer(tmp_path / "site", "geo4d.exports", "ply", "ply_pack:FORMAT", GOOD, monkeypatch)
    assert find_format("ply") is FORMATS["ply"]
    assert format_names() == list(FORMATS)
    assert "ply-pack 1.2 offers a format 'ply', which geo4d has already" in caplog.text


def test_an_entry_point_without_a_package_still_has_a_name() -> None:
    with pytest.raises(PluginError, match="of the package unknown"):
        plugins.load_plugin(EntryPoint("x", "no_such_module:x", "geo4d.exports"))


def test_formats_are_described(shot, tmp_path) -> None:
    assert all(isinstance(one, Format) and one.holds for one in FORMATS.values())
    suffixes = [suffix for one in FORMATS.values() for suffix in one.suffixes if suffix != ".txt"]
    assert len(set(suffixes)) == len(suffixes)
    with pytest.raises(ValueError, match="expected one of npz, exr"):
        save(shot(), tmp_path / "x", "no-such-format", ExportConfig())
