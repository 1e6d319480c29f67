"""Files and folders that appear complete or not at all."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geo4d.errors import DiskFull, Geo4DError, InputError, OutputError, WorkSpaceFull


def existing_file(path: str | Path, what: str) -> Path:
    """``path`` if it is a file.

    Args:
        what: what the file should hold, for the message.
    Raises:
        InputError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"expected {what} at {path}, found {found}; check the path")
    return path


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is complete or absent; a link of that name is replaced, not followed.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    temporary.replace(path)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` at the end, deleted on any error.

    Folders above it are made, and taken away again on an error.

    Raises:
        OutputError: the folder is not writable or the disk is full.
    """
    path = Path(path)
    with output_errors(path), _parents(path):
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part" + path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; renamed to ``path`` at the end, deleted on any error.

    Folders above it are made, and taken away again on an error.

    Args:
        overwrite: replace an existing folder; it is removed only after the new one is complete.
    Raises:
        OutputError: ``path`` exists, is not writable, or the disk is full.
    """
    path = Path(path)
    with output_errors(path), _parents(path):
        if not overwrite:
            _require_new_folder(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        try:
            yield temporary
            temporary.chmod(0o755)
            if path.exists():
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
                path.replace(old / "old")
                temporary.replace(path)
                shutil.rmtree(old)
            else:
                temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


_LISTING = ".geo4d-files.json"
"""In a folder of ours: its files, so that replacing the folder takes away nothing of anyone else's."""


@contextmanager
def all_or_nothing(
    path: str | Path, needed: int, *, into_folder: bool = False, overwrite: bool = False
) -> Iterator[Path]:
    """A place of the name of ``path`` in a temporary folder beside it, for writers of several files.

    What lies in the temporary folder at the end (a file of that name, files and folders beside it, or a folder) is moved
    to where ``path`` is; on any error nothing appears there. A folder gets a hidden list of its files.

    Args:
        needed: bytes that it takes at most, for the message when the disk is full.
        into_folder: files of the folder ``path`` may join others in a folder that is there; otherwise it must be new.
        overwrite: replace files and folders that are there; folders only if they have such a list, and files that it
            does not name stay in the new one.
    Raises:
        OutputError: something is there already, it is not writable, or the disk is full.
    """
    path = Path(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    with disk_errors(path, needed, "nothing was left behind"), output_errors(path), _parents(path):
        if path.is_file() or not into_folder:
            _require_replaceable(path, overwrite)
        stage = Path(tempfile.mkdtemp(dir=path.parent, prefix=".geo4d-", suffix=".part"))
        try:
            yield stage / path.name
            units = []
            for entry in sorted(stage.iterdir()):
                joins = into_folder and entry.is_dir() and entry.name == path.name
                units += sorted(entry.iterdir()) if joins else [entry]
            moves = [(unit, path.parent / unit.relative_to(stage)) for unit in units]
            for unit, target in moves:
                if unit.is_dir():
                    _write_listing(unit)
                _require_replaceable(target, overwrite, kind="folder" if unit.is_dir() else "file")
            for unit, target in moves:
                target.parent.mkdir(exist_ok=True)
                _put(unit, target, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _require_replaceable(path: Path, overwrite: bool, *, kind: str | None = None) -> None:
    """Raises OutputError unless nothing is at ``path`` (or an empty folder), or ours that may be overwritten."""
    if not path.exists() or (path.is_dir() and kind != "file" and not any(path.iterdir())):
        return
    found = "folder" if path.is_dir() else "file"
    if kind not in (None, found):
        raise OutputError(f"expected a {kind} or nothing at {path}, found a {found}; choose another name")
    if not overwrite:
        raise OutputError(f"{path} exists already; choose another name or pass --overwrite (overwrite=True)")
    if path.is_dir() and not (path / _LISTING).is_file():
        raise OutputError(
            f"expected a folder that geo4d wrote to overwrite (with a file {_LISTING}), found another one at {path}; "
            "choose another name"
        )


def _write_listing(folder: Path) -> None:
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    (folder / _LISTING).write_text(json.dumps(files, indent=0), encoding="utf-8", errors="surrogateescape")


def _put(source: Path, target: Path, aside: Path) -> None:
    """Move a file or folder to where it belongs; what others put into a folder that it replaces comes along."""
    if not target.is_dir():
        source.replace(target)
        return
    old = aside / f"{target.name}.old"
    target.replace(old)
    source.replace(target)
    listing = old / _LISTING
    ours = set()
    if listing.is_file():
        ours = {*json.loads(listing.read_text(encoding="utf-8", errors="surrogateescape")), _LISTING}
    for file in sorted(old.rglob("*")):
        name = file.relative_to(old)
        kept = target / name
        if (file.is_file() or file.is_symlink()) and name.as_posix() not in ours and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            file.replace(kept)


def _require_new_folder(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(
            f"expected a new folder, but {path} exists; choose another name or pass --overwrite (overwrite=True)"
        )


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """The folders above ``path``; those that were not there go again on an error."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:  # the deepest first
            with suppress(OSError):
                folder.rmdir()
        raise


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """What the system says about a place that is written to, as errors of ours.

    Raises:
        OutputError: no permission, or a place that cannot be written.
        DiskFull: no room.
    """
    try:
        yield
    except PermissionError as error:
        raise OutputError(f"cannot write {path}: no permission; choose a folder you may write to") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"cannot write {path}: the disk is full") from error
        if error.errno in (
            errno.EROFS,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
            errno.EFBIG,
            errno.ELOOP,
        ):
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another place") from error
        raise


@contextmanager
def disk_errors(path: Path, needed: int, left: str) -> Iterator[None]:
    """Where the disk fills up inside, say so with the path and the bytes, whatever the library that wrote called it.

    Args:
        path: what is being written.
        needed: bytes that it takes at most.
        left: what became of the part that was written.
    Raises:
        DiskFull: in place of whatever said that the disk is full, unless that says itself where and by how much.
    """
    free = _free(path)
    try:
        yield
    except WorkSpaceFull:
        raise
    except Exception as error:
        if not _no_room_was(error) and not _no_room_is(error, path, needed):
            raise
        raise DiskFull(
            f"cannot write {path}: the disk is full; at most {needed} bytes are needed, {free} were free; {left}"
        ) from error


def _no_room_was(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return True
        cause = cause.__cause__
    return False


def _no_room_is(error: Exception, path: Path, needed: int) -> bool:
    """Whether a failed write that does not say why had no room.

    Image, movie and archive libraries report it in words of their own, or as a short write.
    """
    if isinstance(error, Geo4DError | ValueError | TypeError | MemoryError):
        return False
    if _free(path) < max(needed, 2**16):
        return True
    try:  # a quota, or a limit on the size of files
        with tempfile.TemporaryFile(dir=existing_folder(path)) as file:
            file.write(bytes(min(max(needed, 1), 2**20)))
            file.flush()
    except OSError as refused:
        return refused.errno in _NO_ROOM
    return False


def _free(path: Path) -> int:
    return shutil.disk_usage(existing_folder(path)).free


def existing_folder(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    folder = path.absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    return folder


def copy_tree(source: Path, target: Path) -> None:
    """All files of a folder into an existing empty one, without copying their bytes where the disk allows it."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        link_file(file, place)


def link_file(file: Path, target: Path) -> None:
    """A hard link to a file, or a copy of it where there can be none."""
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copy2(file, target)
