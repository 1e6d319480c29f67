"""The last step of a run: its folder takes the place of the output, complete or not at all."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from geo4d.errors import OutputError
from geo4d.formats.locks import FileLock
from geo4d.results.manifest import MANIFEST, WINDOWS, is_plain_folder, is_result, own_files, read_json
from geo4d.results.places import LOCK, MARK, PUBLISHED, REPLACED, SETTINGS

log = logging.getLogger(__name__)


def read_begun(folder: Path) -> dict[str, Any]:
    """What a run was begun with: ``overwrite`` and ``settings``."""
    path = folder / SETTINGS
    try:
        begun = read_json(path)
    except OutputError as error:
        begun = error
    if (
        isinstance(begun, dict)
        and isinstance(begun.get("settings"), dict)
        and isinstance(begun.get("overwrite"), bool)
    ):
        return begun
    raise OutputError(
        f"{path} is damaged, so the unfinished run cannot be gone on with; start again with --overwrite"
    )


def tidy(folder: Path, place: Path) -> None:
    """Finish what a killed run was about to do when it published; a living run is left alone."""
    if not (folder / MARK).exists():
        return
    try:
        lock = FileLock.take(folder / LOCK)
    except FileNotFoundError:
        return
    if lock is None:
        return
    try:
        published = finish_publishing(folder, place)
    except BaseException:
        lock.release()
        raise
    if published:
        remove_run_folder(folder, lock)
    else:
        lock.release()


def finish_publishing(folder: Path, place: Path) -> bool:
    """After a kill between or behind the renames of ``publish``; True when the result was in its place already."""
    replaced = folder / REPLACED
    if not os.path.lexists(place):
        if is_plain_folder(replaced):
            replaced.replace(place)
        return False
    if not (folder / PUBLISHED).exists() or (folder / "result").exists():
        return False
    hand_over(replaced, place)
    return True


def windows_back(folder: Path) -> None:
    """Take windows back that were put into a result which then did not appear."""
    inside = folder / "result" / WINDOWS
    if is_plain_folder(inside) and not (folder / WINDOWS).exists():
        inside.replace(folder / WINDOWS)


def hand_over(replaced: Path, place: Path) -> None:
    """Remove the files of a replaced result that its manifest lists; move everything else to the new one, and say so."""
    if not is_plain_folder(replaced):
        return
    if is_result(replaced):
        manifest = replaced / MANIFEST
        for path in [path for path in own_files(replaced) if path != manifest]:
            path.unlink()
        manifest.unlink()  # last: after a kill the rest is still known to be a result's
    left = sorted(_leaves(replaced))
    for path in left:
        target = place / path.relative_to(replaced)
        while os.path.lexists(target):
            target = target.with_name(target.name + ".old")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    if left:
        names = ", ".join(str(path.relative_to(replaced)) for path in left[:5])
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        log.warning("%s: files that geo4d did not write are left in it: %s%s", place, names, more)
    shutil.rmtree(replaced, ignore_errors=True)


def _leaves(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no plain folder."""
    for path in folder.iterdir():
        if is_plain_folder(path):
            yield from _leaves(path)
        else:
            yield path


def remove_run_folder(folder: Path, lock: FileLock) -> None:
    """Remove what runs make; the folder goes, too, unless someone put something else into it."""
    for name in (WINDOWS, "result"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (SETTINGS, f".{SETTINGS}.part", PUBLISHED):
        (folder / name).unlink(missing_ok=True)
    others = [path.name for path in folder.iterdir() if path.name not in (MARK, LOCK)]
    if others:
        log.warning(
            "%s is left: it holds %s, which geo4d did not write", folder, ", ".join(sorted(others)[:5])
        )
        lock.release()
        return
    (folder / MARK).unlink(missing_ok=True)
    lock.remove()
    with suppress(OSError):  # another run has just begun in it
        folder.rmdir()
