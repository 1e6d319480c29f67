"""Leases on clips, for coordinators on several machines that share nothing but a folder.

The lease of a clip is the file ``NAME.N`` of the highest N: only one can create it. Its holder touches it while it lives.
When that stops, the next one creates ``NAME.N+1``, which again only one can: unlike a rename of ``NAME.N``, that cannot
take a lease away that was renewed between the look and the rename, and the new file is fresh from its first moment on.

Ages are measured by the clock of the file system: a file is touched, and its time is "now". Clocks of machines do not
matter.
"""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geo4d.formats.locks import FileLock, lock_text, running_system

log = logging.getLogger(__name__)

BEATS = 4
"""A lease is touched this many times in the time after which it counts as abandoned."""


class Presence:
    """This coordinator, as others see it: a file that is locked while its process lives, and a clock. A context manager.

    Args:
        folder: of all coordinators.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = uuid.uuid4().hex[:16]
        self.about = {"coordinator": self.id, "process": os.getpid(), **running_system()}
        self._lock: FileLock | None = None

    def __enter__(self) -> "Presence":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock.take(self.folder / self.id)
        assert self._lock is not None  # nobody else knows the name
        self._lock.write(json.dumps(self.about))
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.remove()

    def now(self) -> float:
        """Seconds by the clock of the file system that holds the leases."""
        path = self.folder / self.id
        os.utime(path)
        return _changed(path)

    def is_dead(self, other: dict[str, Any]) -> bool:
        """Whether a coordinator of this same system has certainly ended; of another system nothing is known."""
        name, kernel = other.get("coordinator"), running_system()
        if (
            not isinstance(name, str)
            or not name.isalnum()
            or any(other.get(k) != v for k, v in kernel.items())
        ):
            return False
        if not kernel["kernel"] or name == self.id:
            return False
        path = self.folder / name
        if not path.exists():
            return True
        try:
            lock = FileLock.take(path)
        except OSError:
            return False
        if lock is None:
            return False
        lock.remove()
        return True

    def is_gone(self, name: str, silent_s: float) -> bool:
        """Whether a coordinator of this name has ended, or has not been heard of for so long."""
        path = self.folder / name
        try:
            return name != self.id and self.now() - _changed(path) > silent_s
        except FileNotFoundError:
            return True

    def others(self) -> int:
        """How many other coordinators have a file here; some may have ended without a word."""
        return sum(entry.name != self.id for entry in os.scandir(self.folder))


def _changed(path: Path) -> float:
    """Time of change as the server has it: a network file system looks anew when a file is opened, not for ``stat``."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime


@dataclass
class Lease:
    """A clip that this coordinator alone works on.

    Attributes:
        name: of the clip.
        path: its file.
        number: how often the clip was taken over from one who stopped.
        lost: another coordinator has taken it over.
        abandoned_by: the holder before, who stopped; None for a fresh lease.
    """

    name: str
    path: Path
    number: int
    abandoned_by: dict[str, Any] | None = None
    lost: bool = False
    beaten: float = field(default_factory=time.monotonic)


class Leases:
    """The leases that one coordinator holds, touched by a thread of its own. A context manager.

    Args:
        folder: of all leases.
        presence: this coordinator.
        stale_s: seconds without a touch after which a lease counts as abandoned.
    """

    def __init__(self, folder: Path, presence: Presence, stale_s: float) -> None:
        self.folder = folder
        self.presence = presence
        self.stale_s = stale_s
        self._held: dict[str, Lease] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_end, name="leases", daemon=True)

    def __enter__(self) -> "Leases":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        for lease in list(self._held.values()):
            self.release(lease)

    def take(self, name: str) -> Lease | None:
        """The lease of a clip; None while another coordinator holds it."""
        numbers = self._numbers(name)
        number, before = 0, None
        if numbers:
            before = self._abandoned(self._path(name, numbers[-1]))
            if before is None:
                return None
            number = numbers[-1] + 1
        path = self._path(name, number)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self.presence.about, file)
        if self._numbers(name)[-1] != number:  # was taken over, and given up, since the first look
            path.unlink(missing_ok=True)
            return None
        for old in numbers:
            self._path(name, old).unlink(missing_ok=True)
        lease = Lease(name, path, number, before)
        with self._guard:
            self._held[name] = lease
        return lease

    def release(self, lease: Lease) -> None:
        """Give a clip back."""
        with self._guard:
            self._held.pop(lease.name, None)
        if not lease.lost:
            lease.path.unlink(missing_ok=True)

    def beat(self) -> None:
        """Touch every lease, and find out which are lost; say that this coordinator lives."""
        with suppress(OSError):  # said for the leases below, which are what counts
            self.presence.now()
        with self._guard:
            held = list(self._held.values())
        for lease in held:
            try:
                os.utime(lease.path)
                lease.lost |= self._numbers(lease.name)[-1:] != [lease.number]
                lease.beaten = time.monotonic()
            except FileNotFoundError:
                lease.lost = True
            except OSError as error:
                log.warning("the lease %s cannot be touched: %s", lease.path, error)
                lease.lost |= time.monotonic() - lease.beaten > self.stale_s

    def _beat_until_end(self) -> None:
        while not self._ended.wait(self.stale_s / BEATS):
            self.beat()

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f"{name}.{number}"

    def _numbers(self, name: str) -> list[int]:
        return sorted(number for other, number in self._list() if other == name)

    def _list(self) -> Iterator[tuple[str, int]]:
        for entry in os.scandir(self.folder):
            name, _, number = entry.name.rpartition(".")
            if name and number.isdecimal():
                yield name, int(number)

    def _abandoned(self, path: Path) -> dict[str, Any] | None:
        """Who held a lease and stopped; None while its holder lives."""
        try:
            holder = json.loads(lock_text(path) or "{}")
        except ValueError:
            holder = {}
        holder = holder if isinstance(holder, dict) else {}
        try:
            changed = _changed(path)
        except FileNotFoundError:
            return None  # given back this moment: the next look finds it free
        if self.presence.now() - changed > self.stale_s or self.presence.is_dead(holder):
            return holder
        return None
