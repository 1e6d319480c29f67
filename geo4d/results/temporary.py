"""Folders for results that nobody named: removed at the end, and after a killed run at the next start."""

import logging
import shutil
import tempfile
import weakref
from pathlib import Path

from geo4d.formats.locks import FileLock
from geo4d.results.manifest import is_plain_folder

log = logging.getLogger(__name__)


class TemporaryFolder:
    """A folder that is removed when nothing refers to this object any more; after a kill, when the next one is made."""

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        lock = None
        while (
            lock is None
        ):  # a start of another process can take the lock of a folder that has just been made
            self.path = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
            lock = FileLock.take(self.path / _TEMPORARY_LOCK)
        weakref.finalize(self, _remove_temporary, self.path, lock)


_TEMPORARY, _TEMPORARY_LOCK = "geo4d-", "geo4d-temporary"


def _remove_temporary(folder: Path, lock: FileLock) -> None:
    lock.remove()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary folders of processes that do not live any more."""
    for folder in parent.glob(_TEMPORARY + "*"):
        try:
            if is_plain_folder(folder) and (folder / _TEMPORARY_LOCK).is_file():
                lock = FileLock.take(folder / _TEMPORARY_LOCK)
                if lock is not None:
                    _remove_temporary(folder, lock)
        except OSError as error:  # of another user, or just removed by another process
            log.debug("%s is left: %s", folder, error)
