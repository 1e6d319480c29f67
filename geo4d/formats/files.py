"""Files and folders that appear complete or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geo4d.errors import InputError, OutputError


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


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` at the end, deleted on any error.

    Raises:
        OutputError: the folder is not writable or the disk is full.
    """
    path = Path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part" + path.suffix
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with output_errors(path):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; renamed to ``path`` at the end, deleted on any error.

    Args:
        overwrite: replace an existing folder; it is removed only after the new one is complete.
    Raises:
        OutputError: ``path`` exists, is not writable, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not overwrite and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(
            f"expected a new folder, but {path} exists; choose another name or pass --overwrite"
        )
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        with output_errors(path):
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


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise OutputError(f"cannot write {path}: no permission; choose a folder you may write to") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"cannot write {path}: the disk is full; nothing was left behind") from error
        if error.errno in (errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EFBIG):
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another place") from error
        raise
