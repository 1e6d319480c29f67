"""Where a result may go: names, links, mount points, what lies there already, and our mark on it."""

import os
import re
from pathlib import Path

from geo4d.errors import OutputError
from geo4d.results.manifest import is_plain_folder

MARK, LOCK, SETTINGS, PUBLISHED, REPLACED = "geo4d-run", "lock", "settings.json", "published", "replaced"
"""Names in a run folder: the mark that it is ours; the lock; what the run was begun with; that the result was about to be
renamed into place; the result that it replaces."""


_MARK_TEXT = (
    "A run of geo4d works in this folder. geo4d goes on with it (--resume) or removes it (--overwrite).\n"
)


def real_place(output: Path) -> Path:
    """Where the folder of a result really is or will be: links to it are followed once, here, and never replaced.

    Raises:
        OutputError: a link to nothing.
    """
    if not output.is_symlink():
        return output
    place = Path(os.path.realpath(output))
    if not place.exists():
        raise OutputError(f"{output} is a link to {place}, which does not exist; remove the link")
    return place


def run_folder(output: Path) -> Path:
    """Where a run that will give ``output`` works: beside it, or beside what it links to."""
    place = real_place(output)
    return place.parent / f".{place.name}.geo4d-run"


_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?")


def check_name(name: str, run_name: str, parent: Path, system: str = os.name) -> None:
    """Refuse names that the system cannot give to the folder of a result or of its run.

    Args:
        system: as ``os.name`` tells it.
    Raises:
        OutputError: too long, or reserved or impossible on Windows.
    """
    if system == "nt":
        if _RESERVED.fullmatch(name):
            raise OutputError(f"Windows keeps the name {name} for a device; choose another output")
        if set(name) & set('<>:"|?*') or min(name) < " " or name[-1] in " .":
            raise OutputError(
                f'Windows does not allow the name {name!r}: it holds one of <>:"|?*, or ends with a dot or a space; '
                "choose another output"
            )
    most = os.pathconf(parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    length = len(run_name) if system == "nt" else len(os.fsencode(run_name))
    if length > most:
        raise OutputError(
            f"the name {name[:40]}... is too long: at most {most - (length - len(os.fsencode(name)))} bytes; "
            "choose another output"
        )


def is_mount_point(folder: Path) -> bool:
    """Whether another file system, or another folder, is mounted here."""
    if os.path.ismount(folder):
        return True
    try:  # Linux: a folder of the same file system can be mounted, too, and ``ismount`` does not see that
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return False
    mounted = {re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in lines}
    return os.path.realpath(folder) in mounted


def require_renaming(place: Path, aside: Path) -> None:
    """Find out before any work whether the folder in the way of the result can be moved, as it must be at the end."""
    if not place.exists():
        return
    try:
        place.replace(aside)
    except OSError as error:
        raise OutputError(
            f"{place} cannot be renamed ({error.strerror}), and a finished result is renamed into its place; "
            f"close what uses it, or choose another output, such as {place / 'result'}"
        ) from error
    aside.replace(place)


def put_mark(folder: Path) -> None:
    """Mark a folder as one of geo4d's runs; a mark that is there stays."""
    try:
        descriptor = os.open(folder / MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_MARK_TEXT)


def require_ours(folder: Path) -> None:
    """
    Raises:
        OutputError: what has the name of a run folder was not made by a run.
    """
    if is_plain_folder(folder):
        mark = folder / MARK
        if mark.is_file() and not mark.is_symlink():
            return
        if {path.name for path in folder.iterdir()} <= {LOCK}:
            return  # a run is just putting its mark, or has just taken it away
    if os.path.lexists(folder):
        raise OutputError(
            f"{folder} has the name that a run needs for its own folder, but no run of this version made it; "
            "it is left alone: move it away, or choose another output"
        )
