"""Arrays that a solve works on, on disk where they are too large to be held.

A file is mapped, so numpy and torch see an ordinary array; pages that were worked on are given back to the system, which
keeps them in its cache while it has room and on disk otherwise.
"""

import ctypes
import errno
import mmap
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import WorkSpaceFull

HELD_BYTES = 16 * 2**20
"""Arrays up to this size stay in memory."""

RESIDENT_BYTES = 2**18
"""Of a mapped array, about so much is resident at a time."""

_M_ARENA_MAX = -8
"""glibc's number of that option, ``malloc.h``."""

_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


class Scratch:
    """An array of zeros, in memory when it is small, else in a nameless file that goes with this object.

    Attributes:
        array: the array. Values written to it stay; call ``touched`` now and then while working through it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        folder: Path | None = None,
        *,
        held_bytes: int | None = None,
        resident_bytes: int | None = None,
    ) -> None:
        """
        Args:
            folder: where the file is made; None takes the system's temporary folder.
            held_bytes: up to this size it stays in memory; None takes ``HELD_BYTES``.
            resident_bytes: of a file, about so much is in memory at a time; None takes ``RESIDENT_BYTES``.
        Raises:
            WorkSpaceFull: the disk has no room for it.
        """
        self._resident = 0
        self._most_resident = RESIDENT_BYTES if resident_bytes is None else resident_bytes
        self._map: mmap.mmap | None = None
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size <= (HELD_BYTES if held_bytes is None else held_bytes):
            self.array = np.zeros(shape, dtype)
            return
        with tempfile.TemporaryFile(dir=folder) as file:
            # Every byte gets its place on disk now: a page that finds none later would kill the process.
            _allocate(file.fileno(), size, folder)
            self._map = mmap.mmap(file.fileno(), size)
        self.array = np.frombuffer(self._map, dtype).reshape(shape)

    @property
    def on_disk(self) -> bool:
        """Whether it is too large to be held."""
        return self._map is not None

    def touched(self, num_bytes: int) -> None:
        """Say that about so many bytes were read or written; lets go of pages when they have become many."""
        self._resident += num_bytes
        if self._resident >= self._most_resident:
            self._let_go()

    def clear(self) -> None:
        """Set everything to zero."""
        flat = self.array.reshape(-1)
        step = RESIDENT_BYTES // flat.itemsize
        for start in range(0, flat.size, step):
            flat[start : start + step] = 0
            self.touched(self._most_resident)

    def _let_go(self) -> None:
        self._resident = 0
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def give_back_memory() -> None:
    """Return what was freed to the system, where the C library keeps it for later use (glibc)."""
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_one_heap() -> None:
    """All threads of this process, from now on, take memory from one heap of the C library (glibc).

    By default new threads get heaps of their own. A process that lives long and has threads come and go, as libraries
    make them to decode and to compress, spreads what it keeps over them, and ever less of each can be given back: 2 to
    4 MiB a clip over the 60 that were watched. With one heap, 80 clips end where the eighth did.
    """
    adjust = getattr(_C_LIBRARY, "mallopt", None)
    if adjust is not None:
        adjust(_M_ARENA_MAX, 1)


def _allocate(file: int, size: int, folder: Path | None) -> None:
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
            return
        block = bytes(2**20)
        for start in range(0, size, len(block)):
            os.write(file, block[: size - start])
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise WorkSpaceFull(
            f"cannot write {folder or tempfile.gettempdir()}: the disk is full; {size} bytes of work space are needed "
            "there; free some space or choose another output"
        ) from error
