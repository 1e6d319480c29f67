"""What a run may remove and replace: its own, and nothing else; and what it refuses before any work."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from geo4d.errors import OutputError
from geo4d.results.manifest import own_files
from geo4d.results.places import run_folder
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace, check_output
from tests.support.stored import SETTINGS, begin, run_once, write_result

OTHER = {"seed": 1}


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, links as such, with the content of small files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = path.read_text(errors="replace") if path.stat().st_size < 200 else "large"
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    (folder / "windows").mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")
    (folder / "windows" / ".hidden").write_text("mine")
    (folder / "settings.json").write_text("mine")
    return folder


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_link_of_the_name_of_the_run_folder_is_not_followed(tmp_path, victim, options) -> None:
    before = listing(victim)
    run_folder(tmp_path / "out").symlink_to(victim, target_is_directory=True)
    with pytest.raises(OutputError, match="it is left alone"):
        run_once(tmp_path / "out", **options)
    assert listing(victim) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_or_file_of_that_name_that_no_run_made_is_left(tmp_path, victim, options) -> None:
    folder = run_folder(tmp_path / "out")
    victim.rename(folder)
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="no run of this version made it"):
        run_once(tmp_path / "out", **options)
    assert listing(tmp_path) == before
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(OutputError, match="no run of this version made it"):
        run_once(tmp_path / "out", **options)
    assert folder.read_text() == "a file"


@pytest.mark.parametrize("name", ["lock", "windows", "result", "settings.json"])
def test_links_inside_a_run_folder_are_not_followed(tmp_path, victim, name) -> None:
    begin(tmp_path / "out")
    inside = run_folder(tmp_path / "out") / name
    if inside.is_dir():
        shutil.rmtree(inside)
    inside.unlink(missing_ok=True)
    target = victim if name in ("windows", "result") else victim / "precious.txt"
    inside.symlink_to(target)
    before = listing(victim)
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with contextlib.suppress(OutputError):
            run_once(tmp_path / "out", **options)
        assert listing(victim) == before


def test_what_a_user_puts_into_a_run_folder_stays(tmp_path, caplog) -> None:
    begin(tmp_path / "out")
    mine = run_folder(tmp_path / "out") / "notes.txt"
    mine.write_text("mine")
    run_once(tmp_path / "out", overwrite=True)
    assert mine.read_text() == "mine"
    assert "holds notes.txt" in caplog.text


def test_overwrite_removes_what_the_manifest_lists_and_says_what_it_leaves(tmp_path, caplog) -> None:
    out = tmp_path / "out"
    run_once(out)
    precious = tmp_path / "precious.txt"
    precious.write_text("far away")
    for name in (
        "notes.txt",
        "renders/a.png",
        "arrays.zarr/depth/notes.txt",
        "arrays.zarr/mine/x",
        "windows/mine",
    ):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    (out / "link").symlink_to(precious)
    (out / "arrays.zarr" / "scene" / "zarr.json").unlink()
    (out / "arrays.zarr" / "scene" / "zarr.json").symlink_to(precious)
    run_once(out, overwrite=True)
    assert load_result(out).num_frames == 3
    found = listing(out)
    for name in (
        "notes.txt",
        "renders/a.png",
        "arrays.zarr/depth/notes.txt",
        "arrays.zarr/mine/x",
        "windows/mine",
    ):
        assert found[name] == name
    assert found["link"] == f"-> {precious}"
    assert found["arrays.zarr/scene/zarr.json.old"] == f"-> {precious}"
    assert precious.read_text() == "far away"
    assert "files that geo4d did not write are left in it: " in caplog.text
    assert "notes.txt" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious.txt"]


def test_own_files_are_all_files_of_a_result(tmp_path) -> None:
    for version in ("1", "2"):
        folder = Path(__file__).parents[1] / "fixtures" / "results" / version
        assert set(own_files(folder)) == {path for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_only_claims_to_be_a_result_is_left_alone(tmp_path) -> None:
    trick = tmp_path / "trick"
    trick.mkdir()
    for text in ('{"format": "geo4d-result"}', '{"format": "geo4d-result", "version": 1, "arrays": {}}', "["):
        (trick / "manifest.json").write_text(text)
        (trick / "precious").write_text("mine")
        before = listing(trick)
        with pytest.raises(OutputError, match="left alone"):
            run_once(trick, overwrite=True)
        assert listing(trick) == before


def test_a_linked_output_is_replaced_where_it_is_and_the_link_stays(tmp_path) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    run_once(real)
    link.symlink_to(real)
    with pytest.raises(OutputError, match="--overwrite"):
        run_once(link)
    with Workspace(link, SETTINGS, overwrite=True) as work:
        assert work.folder.parent == real.parent
        write_result(work.result, num_frames=5)
        assert work.publish().num_frames == 5
    assert link.is_symlink()
    assert load_result(real).num_frames == load_result(link).num_frames == 5
    assert [path.name for path in real.parent.iterdir()] == ["real"]
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "to_empty").symlink_to(empty)
    assert run_once(tmp_path / "to_empty").num_frames == 3
    assert load_result(empty).num_frames == 3
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="does not exist; remove the link"):
        check_output(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="link"):
        check_output(tmp_path / "loop")


def test_an_interrupted_overwrite_is_resumed(tmp_path) -> None:
    out = tmp_path / "out"

    def interrupted(**options: bool) -> None:
        work = Workspace(out, SETTINGS, **options).__enter__()
        (work.windows / "window_000000_try0.zarr.zip").write_text("done")
        work.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    for again in ({"resume": True}, {"resume": True, "overwrite": True}):
        shutil.rmtree(out, ignore_errors=True)
        run_once(out)
        interrupted(overwrite=True)
        assert load_result(out).num_frames == 3
        interrupted(**again)  # twice
        with pytest.raises(OutputError, match="other settings"), Workspace(out, OTHER, **again):
            pass
        with Workspace(out, SETTINGS, **again) as work:
            assert [path.name for path in work.windows.iterdir()] == ["window_000000_try0.zarr.zip"]
            write_result(work.result, num_frames=5)
            assert work.publish().num_frames == 5
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError, match="complete already"):
        check_output(out, resume=True)


def test_a_failing_publication_keeps_the_old_result_and_the_windows(tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    run_once(out)
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == "result":
            raise PermissionError(13, "the folder is in use")
        return replace(self, target)

    work = Workspace(out, SETTINGS, overwrite=True).__enter__()
    (work.windows / "window_000000_try0.zarr.zip").write_text("done")
    write_result(work.result, num_frames=5)
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OutputError) as raised:
        work.publish(keep_windows=True)
    monkeypatch.undo()
    work.__exit__(OutputError, raised.value, None)
    assert load_result(out).num_frames == 3
    with Workspace(out, SETTINGS, resume=True) as work:
        assert [path.name for path in work.windows.iterdir()] == ["window_000000_try0.zarr.zip"]


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"settings": [], "overwrite": true}', "[" * 100_000, "\xff"]
)
def test_damaged_settings_of_an_unfinished_run_are_said(tmp_path, text) -> None:
    begin(tmp_path / "out")
    (run_folder(tmp_path / "out") / "settings.json").write_text(text, encoding="latin-1")
    for options in ({"resume": True}, {}):
        with pytest.raises(OutputError, match=r"settings\.json is damaged.*start again with --overwrite"):
            run_once(tmp_path / "out", **options)
    assert run_once(tmp_path / "out", overwrite=True).num_frames == 3


def test_replacing_does_not_rely_on_renaming_over_a_folder(tmp_path, monkeypatch) -> None:
    """Windows renames onto no existing folder, also onto no empty one."""
    replace = Path.replace

    def windows(self: Path, target: Path) -> Path:
        if Path(target).is_dir():
            raise PermissionError(5, "Access is denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", windows)
    (tmp_path / "out").mkdir()
    assert run_once(tmp_path / "out").num_frames == 3
    assert run_once(tmp_path / "out", overwrite=True).num_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_lock_is_removed_where_open_files_cannot_be(tmp_path, monkeypatch) -> None:
    """Windows removes no open file."""
    opened, real_open, real_close, unlink = {}, os.open, os.close, Path.unlink

    def track(path: object, *args: int, **kwargs: int) -> int:
        descriptor = real_open(path, *args, **kwargs)
        opened[descriptor] = str(path)
        return descriptor

    def close(descriptor: int) -> None:
        opened.pop(descriptor, None)
        real_close(descriptor)

    def windows(self: Path, missing_ok: bool = False) -> None:
        if str(self) in opened.values() and self.name == "lock":
            raise PermissionError(32, "The process cannot access the file")
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "open", track)
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(Path, "unlink", windows)
    run_once(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
