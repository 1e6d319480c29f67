import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from geo4d.formats.locks import LOCKED_BYTE, FileLock, lock_text

HOLD = (
    "import sys; from pathlib import Path; from geo4d.formats.locks import FileLock\n"
    "lock = FileLock.take(Path(sys.argv[1])); lock.write('holder'); print('held', flush=True); sys.stdin.read()\n"
)


def test_one_process_holds_it_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert FileLock.take(path) is None
        assert lock_text(path) == "holder"
        holder.kill()
    lock = FileLock.take(path)
    assert lock is not None
    lock.write("x")
    assert lock_text(path) == "x"
    lock.remove()
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        FileLock.take(tmp_path / "none" / "lock")


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        FileLock.take(tmp_path / "lock")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_on_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "lock", os.open
    opened = []

    def racing(name: object, *args: int) -> int:
        descriptor = real(name, *args)
        if not opened:
            path.unlink()  # its holder ends between our opening and our locking
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", racing)
    lock = FileLock.take(path)
    assert lock is not None
    assert len(opened) == 2
    assert path.exists()


def test_windows_locks_one_byte_behind_the_text_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``msvcrt`` locks from the position of the file on; readers may not touch what is locked."""
    locked: set[tuple[int, int]] = set()

    def locking(descriptor: int, mode: int, count: int) -> None:
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        assert (mode, count) == (2, 1)
        if place in locked:
            raise OSError(36, "Resource deadlock avoided")
        locked.add(place)

    monkeypatch.setitem(sys.modules, "fcntl", None)  # an import of it fails
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    first = FileLock.take(tmp_path / "lock")
    assert first is not None
    first.write("1234")
    assert FileLock.take(tmp_path / "lock") is None  # though the file is longer now
    assert lock_text(tmp_path / "lock") == "1234"
    assert {offset for _, offset in locked} == {LOCKED_BYTE}
