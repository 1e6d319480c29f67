"""The lock of a result in an object store: who computes it, for runs and batches on several machines.

The lock of ``URL`` is the object ``URL.lock/N`` of the highest N, as a lease of ``geo4d.batch.leases`` is a file: only
one can create it, since stores that know conditional writes refuse the second (S3's ``If-None-Match: *``). Its holder
writes it again while it lives; when that stops, the next one creates N+1. Ages are differences of times that the store
gave, so clocks of machines do not matter.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from geo4d.errors import OutputError, OutputInUse
from geo4d.formats.files import output_errors
from geo4d.formats.objects import Objects

log = logging.getLogger(__name__)

STALE_S = 120.0
"""Seconds without a sign of life after which a lock counts as abandoned."""

OWNER = "owner"
"""File that tells a folder from all others."""

BEATS = 6
"""A lock is written again this many times in that time."""


class StoreLock:
    """A context manager that holds the lock of an address; its sign of life is given by a thread of its own.

    Args:
        url: of the result.
        owner: of those who keep each other away by other means (``owner_of``): what one of them has left, another takes
            over at once. Empty: nobody else is of this kind.
        stale_s: see ``STALE_S``; those who use one address must agree on it.
    Raises:
        OutputInUse: when entered, somebody else holds it and lives.
        OutputError: the store does not answer, or refuses.
    """

    def __init__(self, url: str, *, owner: str = "", stale_s: float = STALE_S) -> None:
        self.url, self.stale_s = url.rstrip("/"), stale_s
        self.id, self.owner = uuid.uuid4().hex[:16], owner
        self.lost = False
        self._objects = Objects(f"{self.url}.lock")
        about = {"id": self.id, "owner": owner, "process": os.getpid(), "host": socket.gethostname()}
        self._about = json.dumps(about).encode()
        self._number = -1
        self._beaten = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_end, name="store lock", daemon=True)

    def __enter__(self) -> "StoreLock":
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        if self.lost:
            return
        try:
            self._objects.remove([str(self._number)])
        except OutputError as failure:
            log.warning("%s; the lock counts as abandoned in %.0f s", failure, self.stale_s)

    def require(self) -> None:
        """
        Raises:
            OutputInUse: another run has taken the address over, since this one was not heard of for too long.
        """
        if self.lost:
            raise OutputInUse(
                f"{self.url} was taken over by another run, since nothing was heard of this one for "
                f"{self.stale_s:g} s; it is left to that one"
            )

    def beat(self) -> None:
        """Give a sign of life, and find out whether the lock is lost."""
        try:
            numbers = self._numbers()
            self.lost |= numbers[-1:] != [self._number]
            if not self.lost:
                self._objects.write(str(self._number), self._about)
                self._beaten = time.monotonic()
        except OutputError as error:
            log.warning("the lock cannot be renewed: %s", error)
            self.lost |= time.monotonic() - self._beaten > self.stale_s

    def _take(self) -> None:
        numbers = self._numbers()
        if numbers:
            self._require_gone(str(numbers[-1]))
        self._number = numbers[-1] + 1 if numbers else 0
        name = str(self._number)
        self._objects.create(name, self._about)
        # One whose answer was lost and that was repeated finds its own object, one that came second that of another.
        if self._objects.read(name) != self._about:
            raise OutputInUse(f"another run has just begun to write {self.url}; wait for it")
        if self._numbers()[-1:] != [self._number]:  # was taken over since the first look
            self._objects.remove([name])
            raise OutputInUse(f"another run has just begun to write {self.url}; wait for it")
        self._objects.remove(str(number) for number in numbers)

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._objects.list() if name.isdecimal())

    def _age(self, name: str) -> float | None:
        """Seconds by the store's own clock since an object was written; None where it is gone."""
        probe = f"now-{self.id}"
        self._objects.write(probe, b"")
        try:
            now, then = self._objects.written(probe), self._objects.written(name)
        finally:
            self._objects.remove([probe])
        return None if now is None or then is None else now - then

    def _require_gone(self, name: str) -> None:
        try:
            holder = json.loads(self._objects.read(name) or b"{}")
            who = f"process {holder['process']} on {holder['host']}"
        except (ValueError, KeyError, TypeError):
            holder, who = {}, "unknown"
        age = self._age(name)
        ours = bool(self.owner) and holder.get("owner") == self.owner
        if age is not None and age <= self.stale_s and not ours:
            raise OutputInUse(
                f"another run ({who}) is writing {self.url}, and gave a sign of life {max(age, 0):.0f} s ago; wait "
                f"for it or choose another output; one that was ended without a word counts as gone after "
                f"{self.stale_s:g} s"
            )
        log.warning("%s: the run before (%s) stopped without a word", self.url, who)

    def _beat_until_end(self) -> None:
        while not self._ended.wait(self.stale_s / BEATS):
            self.beat()


def owner_of(folder: Path) -> str:
    """What all who share a folder are known by, and nobody else; made when it is first asked for."""
    path = folder / OWNER
    with output_errors(folder), suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(uuid.uuid4().hex)
    return path.read_text(encoding="ascii")
