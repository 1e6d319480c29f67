"""What tests of results in object stores share: comparison, a run that is ended, many that want to write at a time."""

import threading
from pathlib import Path

import numpy as np
import pytest

import geo4d
from geo4d.errors import OutputInUse
from geo4d.formats.objects import Objects
from geo4d.results.remote_lock import StoreLock

NAMES = ("depth", "confidence", "dynamic", "c2w", "intrinsics", "times_s")


def same(found: geo4d.Reconstruction, folder: Path) -> bool:
    """Whether a result holds the arrays of the one in a folder."""
    whole = geo4d.load(folder)
    return all(
        np.array_equal(np.asarray(getattr(found, n)[:]), np.asarray(getattr(whole, n)[:]), equal_nan=True)
        for n in NAMES
    )


def end_at(patch: pytest.MonkeyPatch, part: str) -> None:
    """End whatever writes the first object with this part in its name, as Ctrl-C does."""
    write = Objects.write

    def ended(self, name, data):
        if part in name:
            raise KeyboardInterrupt
        write(self, name, data)

    patch.setattr(Objects, "write", ended)


def take_at_once(url: str, count: int = 6) -> tuple[list[StoreLock], list[OutputInUse]]:
    """Who gets the lock of an address of so many that try together, and what the others are told."""
    start, got, refused = threading.Barrier(count), [], []

    def take() -> None:
        lock = StoreLock(url)
        start.wait()
        try:
            lock._take()
            got.append(lock)
        except OutputInUse as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got, refused
