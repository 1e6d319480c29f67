"""A lock on a file, freed by the system when its process ends, however it ends; on every system."""

import os
import socket
from pathlib import Path

LOCKED_BYTE = 2**30
"""Windows locks bytes, not files, and nobody else may read a locked byte: this one lies far behind the text."""


class FileLock:
    """An open, locked file that may hold a line of text. Make one with ``take``; it lives until ``release``."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> "FileLock | None":
        """Open the file, made if missing, and lock it without waiting.

        Returns:
            None when another process holds it.
        Raises:
            FileNotFoundError: the folder is not there (any more).
            OSError: ``path`` is a link (never followed), or not to be opened.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        while True:
            descriptor = os.open(path, flags, 0o644)
            try:
                locked = _lock(descriptor)
                if locked and _is_still(descriptor, path):
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not locked:
                return None
            # The holder before removed the file after we had opened it: try the new one.

    def write(self, text: str) -> None:
        """Replace what the file holds."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text.encode())

    def release(self) -> None:
        """Free the lock; the file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Free the lock and remove the file."""
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError:  # Windows removes no open file
            self.release()
            try:
                self.path.unlink(missing_ok=True)
            except PermissionError:
                return  # another process has opened it meanwhile: it is theirs now
        self.release()


def lock_text(path: Path) -> str:
    """What the holder of a lock wrote into the file; empty when that cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    """Take an exclusive lock on an open file without waiting; False when another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def running_system() -> dict[str, str]:
    """What tells this running system from any other; the kernel is unknown where it has no such number."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return {"host": socket.gethostname(), "kernel": boot}
