"""The folder in which a run keeps what it has done, locked while it runs, and published at the end."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import OtherSettings, OutputError, OutputInUse
from geo4d.formats.files import output_errors, write_json
from geo4d.formats.locks import FileLock, lock_text
from geo4d.results.layout import differences, plain
from geo4d.results.manifest import WINDOWS, is_result
from geo4d.results.places import (
    LOCK,
    PUBLISHED,
    REPLACED,
    SETTINGS,
    check_name,
    is_mount_point,
    put_mark,
    real_place,
    require_ours,
    require_renaming,
    run_folder,
)
from geo4d.results.publish import (
    finish_publishing,
    hand_over,
    read_begun,
    remove_run_folder,
    tidy,
    windows_back,
)
from geo4d.results.reader import load_result
from geo4d.results.temporary import TemporaryFolder
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)


class Workspace:
    """The hidden folder of a run, locked while the run lives.

    Use as a context manager. On success call ``publish``; on an error the finished windows stay for a later resume, and
    a run that finished none leaves nothing.

    Args:
        output: where the result will be, or a link to it; None: a temporary folder that lives as long as the result.
        settings: what decides the windows of the run; a resumed run must agree.
        overwrite: replace an existing result, or forget an unfinished run.
        resume: go on with an unfinished run, also with one that was begun with ``overwrite``.
    Raises:
        OutputInUse: is being written by another run.
        OtherSettings: the unfinished run to go on with was begun with other settings.
        OutputError: exists already, not writable.
    """

    def __init__(
        self,
        output: Path | None,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self._temporary = TemporaryFolder() if output is None else None
        folder = self._temporary.path if self._temporary is not None else None
        self.output = folder / "result" if folder is not None else Path(output or "")
        self.settings = plain(settings)
        self.overwrite = overwrite
        self.resume = resume
        self.place = real_place(self.output)
        self.folder = run_folder(self.output)
        self.windows = self.folder / WINDOWS
        self.result = self.folder / "result"
        self._lock: Any = None

    def __enter__(self) -> "Workspace":
        check_output(self.output, overwrite=self.overwrite, resume=self.resume)
        with output_errors(self.output):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            try:
                self._begin()
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        windows_back(self.folder)
        if self.result.exists():  # it did not get into its place
            (self.folder / PUBLISHED).unlink(missing_ok=True)
        if kind is not None and self._temporary is None and any(self.windows.glob("window_*")):
            shutil.rmtree(self.result, ignore_errors=True)
            log.warning(
                "the finished windows are kept in %s; run again with --resume to go on, or with --overwrite",
                self.folder,
            )
            self._lock.release()
        else:
            remove_run_folder(self.folder, self._lock)

    def publish(self, *, keep_windows: bool = False) -> Reconstruction:
        """Rename the finished result into place and open it.

        A result that it replaces is removed file by file, as its manifest lists them; what else lies in it is handed on.
        """
        replaced = self.folder / REPLACED
        with output_errors(self.output):
            if keep_windows:
                self.windows.replace(self.result / WINDOWS)
            (self.folder / PUBLISHED).touch()
            if self.place.exists():
                self.place.replace(replaced)
            try:
                self.result.replace(self.place)
            except BaseException:
                if replaced.exists():
                    replaced.replace(self.place)
                raise
            hand_over(replaced, self.place)
        return load_result(self.output, keep=self._temporary)

    def _take_lock(self) -> FileLock:
        """The lock of the run folder, which is made if it is not there and otherwise must be ours."""
        while True:
            try:
                self.folder.mkdir()
            except FileExistsError:
                require_ours(self.folder)
            try:
                put_mark(self.folder)
                lock = FileLock.take(self.folder / LOCK)
            except FileNotFoundError:
                continue  # another run just finished and removed its folder
            if lock is None:
                owner = lock_text(self.folder / LOCK) or "unknown"
                raise OutputInUse(
                    f"another run (process {owner}) is writing {self.output}; wait for it or choose another output"
                )
            lock.write(str(os.getpid()))
            return lock

    def _begin(self) -> None:
        finish_publishing(self.folder, self.place)
        windows_back(self.folder)
        for name in (WINDOWS, "result"):
            if (self.folder / name).is_symlink():
                raise OutputError(f"{self.folder / name} is a link, which no run makes; remove it")
        require_renaming(self.place, self.folder / REPLACED)
        (self.folder / PUBLISHED).unlink(missing_ok=True)
        shutil.rmtree(self.result, ignore_errors=True)
        begun = None
        if (self.folder / SETTINGS).exists() and (self.resume or not self.overwrite):
            begun = read_begun(self.folder)
            if not self.resume:
                count = len(list(self.windows.glob("window_*")))
                raise OutputError(
                    f"an unfinished run of {self.output} exists ({count} windows done); "
                    "--resume goes on with it, --overwrite starts again"
                )
            different = differences(begun["settings"], self.settings)
            if different:
                raise OtherSettings(
                    f"the unfinished run of {self.output} has other settings ({'; '.join(different)}); "
                    "repeat them, or start again with --overwrite alone"
                )
        else:
            shutil.rmtree(self.windows, ignore_errors=True)
        self.windows.mkdir(exist_ok=True)
        for leftover in self.windows.glob(".*"):
            leftover.unlink()
        overwrite = self.overwrite or (begun is not None and begun["overwrite"])
        write_json(self.folder / SETTINGS, plain({"overwrite": overwrite, "settings": self.settings}))


def check_output(output: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output that must not or cannot be replaced, before anything is computed.

    Tidies up what a run that was killed while it published has left.

    Raises:
        OutputError: it exists and ``overwrite`` is not given, is not a result of ours, cannot be renamed, or cannot be
            written.
    """
    try:
        _check_output(output, overwrite, resume)
    except OSError as error:
        raise OutputError(
            f"cannot write {str(output)[:300]}: {error.strerror or error}; choose another output"
        ) from error


def _check_output(output: Path, overwrite: bool, resume: bool) -> None:
    if not output.name or output.name == "..":
        raise OutputError(f"expected a folder name for the result, got {str(output)!r}")
    ancestor = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise OutputError(f"cannot write {output}: {ancestor} is not a folder that you may write to")
    place, folder = real_place(output), run_folder(output)
    check_name(place.name, folder.name, ancestor)
    if os.path.lexists(folder):
        require_ours(folder)
        tidy(folder, place)
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise OutputError(f"{output} exists and is not a folder; choose another output")
    if is_mount_point(place):
        raise OutputError(
            f"{output} is a mount point, and a finished result is renamed into place, which a mount point is not; "
            f"choose a folder inside, such as {output / 'result'}"
        )
    if not os.access(place.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {place.parent} is not a folder that you may write to")
    if not any(place.iterdir()):
        return
    if not is_result(place):
        raise OutputError(
            f"{output} exists and is not a geo4d result; it is left alone, choose another output"
        )
    begun = read_begun(folder) if resume and (folder / SETTINGS).exists() else None
    if not overwrite and not (begun is not None and begun["overwrite"]):
        hint = (
            "is complete already; load it, or start again with --overwrite"
            if resume
            else ("exists; choose another output, or replace it with --overwrite")
        )
        raise OutputError(f"{output} {hint}")
