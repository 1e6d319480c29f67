"""A copy of the finished windows in an object store, while a run lasts: for machines that may vanish with their disks.

The spool itself stays on a disk, since the fusion reads windows many times and workers map its pictures. What is worth
keeping is what was predicted: a window's file, and that of its evidence, which is copied before it.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from geo4d.errors import OtherSettings, OutputError
from geo4d.formats.files import output_errors
from geo4d.formats.locks import running_system
from geo4d.formats.objects import REQUESTS, Objects
from geo4d.results.layout import differences, plain
from geo4d.results.places import SETTINGS
from geo4d.results.remote_lock import StoreLock
from geo4d.results.workspace import Workspace
from geo4d.run.predict import Progress

log = logging.getLogger(__name__)

PATTERNS = ("evidence_*.zarr.zip", "window_*_try0.zarr.zip")
"""What is copied, in this order: a window without its evidence would be taken for one that has none."""


@contextmanager
def keep_copy(url: str | None, work: Workspace, progress: Progress) -> Iterator[Progress]:
    """Keep a copy of the windows of a run; gives the callback for the stage that predicts them.

    Args:
        url: None keeps none.
    Raises:
        OutputError: see ``SpoolCopy.kept``.
    """
    if url is None:
        yield progress
        return
    copy = SpoolCopy(url, work.windows, work.settings)
    with copy.kept(resume=work.resume, overwrite=work.overwrite):
        yield copy.watch(progress)


class SpoolCopy:
    """The copy of one run.

    Args:
        url: address that holds this copy and nothing else.
        windows: folder of the spool.
        settings: what decides the windows; those of a copy to go on from must be the same.
    """

    def __init__(self, url: str, windows: Path, settings: Mapping[str, Any]) -> None:
        self.url, self.windows = url.rstrip("/"), windows
        self.settings = json.loads(json.dumps(plain(settings)))
        self._objects = Objects(self.url)
        self._there: set[str] = set()
        self._failed = False
        self._pool = ThreadPoolExecutor(1, "spool copy")
        self._copying: Future[None] | None = None

    @contextmanager
    def kept(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Hold the address, and bring back what a run has left there; an error leaves the copy for the next one.

        Args:
            resume: go on from it, if there is one.
            overwrite: forget it.
        Raises:
            OtherSettings: the copy is of a run with other settings.
            OutputInUse: another run has this address.
            OutputError: a copy is there and neither was asked for, or something else; or the store does not answer.
        """
        owner = json.dumps(
            [running_system(), str(self.windows.absolute())]
        )  # on one machine the run's own lock holds
        with StoreLock(self.url, owner=owner), self._pool:
            self._begin(resume=resume, overwrite=overwrite)
            try:
                yield
            except BaseException:
                self._pool.submit(self._copy)
                raise
            self._pool.submit(self._remove)

    def watch(self, progress: Progress) -> Progress:
        """A progress callback that passes on, and copies what has been finished since."""

        def passed(stage: str, done: int, total: int) -> None:
            progress(stage, done, total)
            if stage == "predict" and (self._copying is None or self._copying.done()):
                self._copying = self._pool.submit(self._copy)

        return passed

    def _begin(self, *, resume: bool, overwrite: bool) -> None:
        found = self._objects.list()
        foreign = [name for name in found if not _is_ours(name)]
        if foreign:
            raise OutputError(
                f"{self.url} holds {foreign[0]}, which is no window of a run; choose another address"
            )
        if found and resume:
            begun = json.loads(self._objects.read(SETTINGS) or b"{}")
            different = differences(begun, self.settings)
            if different:
                raise OtherSettings(
                    f"the windows in {self.url} are of a run with other settings ({'; '.join(different)}); repeat them, "
                    "or start again with --overwrite alone"
                )
            self._bring_back(found)
        elif found and not overwrite:
            count = sum(name.startswith("window_") for name in found)
            raise OutputError(
                f"{self.url} holds {count} windows of an unfinished run; --resume goes on with it, --overwrite "
                "starts again"
            )
        else:
            self._objects.remove(found)
            self._objects.write(SETTINGS, json.dumps(self.settings).encode())

    def _bring_back(self, found: Mapping[str, int]) -> None:
        """Files that the disk lacks; of windows those with all their bytes, since damage would cost the window only."""
        for name, size in sorted(found.items()):
            path = self.windows / name
            if name == SETTINGS:
                continue
            self._there.add(name)
            if path.is_file():
                continue
            for _ in range(REQUESTS):
                data = self._objects.read(name)
                if data is not None and len(data) == size:
                    temporary = path.with_name(f".{name}")
                    with output_errors(path):
                        temporary.write_bytes(data)
                        temporary.replace(path)
                    break
            else:
                raise OutputError(
                    f"{self.url} gives {name} incompletely, asked {REQUESTS} times; try again later"
                )

    def _copy(self) -> None:
        """What is finished and not copied yet; a store that fails is asked again beside the next window."""
        try:
            for pattern in PATTERNS:
                for path in sorted(self.windows.glob(pattern)):
                    if path.name not in self._there:
                        self._objects.write(path.name, path)
                        self._there.add(path.name)
            self._failed = False
        except OutputError as error:
            if not self._failed:
                log.warning("%s; the run goes on, and what is not copied yet is tried again", error)
            self._failed = True

    def _remove(self) -> None:
        """The result is there: nobody goes on from here."""
        try:
            self._objects.remove([SETTINGS])
            self._objects.remove(self._there)
        except OutputError as error:
            log.warning("%s; the windows there are of no use any more", error)


def _is_ours(name: str) -> bool:
    return name == SETTINGS or any(fnmatch(name, pattern) for pattern in PATTERNS)
