from pathlib import Path

import pytest

from geo4d.errors import OutputError
from geo4d.results.places import check_name, is_mount_point
from geo4d.results.workspace import Workspace, check_output
from tests.support.stored import SETTINGS


def test_impossible_outputs_are_refused_before_any_work(tmp_path) -> None:
    for name in ("a" * 256, "a" * 250, ""):
        with pytest.raises(OutputError, match=r"too long|expected a folder name"):
            check_output(Path(name) if not name else tmp_path / name)
    check_output(tmp_path / ("a" * 240))
    with pytest.raises(OutputError, match="expected a folder name"):
        check_output(tmp_path / "new" / "..")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="not a folder that you may write to"):
        check_output(tmp_path / "nowhere" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["nowhere"]


@pytest.mark.parametrize(
    "name", ["con", "NUL.txt", "com1", "LPT9", "a:b", "what?", "dot.", "space ", "tab\t"]
)
def test_names_that_windows_does_not_allow(tmp_path, name) -> None:
    with pytest.raises(OutputError, match="Windows"):
        check_name(name, f".{name}.geo4d-run", tmp_path, system="nt")
    check_name(name, f".{name}.geo4d-run", tmp_path, system="posix")
    check_name("console", ".console.geo4d-run", tmp_path, system="nt")


def test_mount_points_are_refused_before_any_work(tmp_path, monkeypatch) -> None:
    mount = tmp_path / "mo unt"
    mount.mkdir()
    assert not is_mount_point(mount)
    real = Path.read_text

    def read_text(self: Path, *args: str, **kwargs: str) -> str:
        if str(self) == "/proc/self/mountinfo":
            escaped = str(mount).replace(" ", "\\040")
            return f"36 35 98:0 /sub {escaped} rw,noatime master:1 - ext4 /dev/root rw\n"
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(OutputError, match=r"is a mount point.*choose a folder inside"):
        check_output(mount)
    monkeypatch.undo()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == mount)
    with pytest.raises(OutputError, match="is a mount point"):
        check_output(mount)
    check_output(mount / "result")


def test_what_cannot_be_renamed_is_refused_before_any_work(tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    replace = Path.replace

    def busy(self: Path, target: Path) -> Path:
        if self == out:
            raise OSError(16, "Device or resource busy")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(OutputError, match="cannot be renamed"), Workspace(out, SETTINGS):
        pytest.fail("work began")
