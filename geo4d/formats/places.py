"""Files of one folder, on a disk or in an object store, read and written by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from geo4d.errors import InputError, MissingExtraError, OutputError
from geo4d.formats.files import new_file


@dataclass(frozen=True)
class Place:
    """A folder on a disk, or a prefix in an object store (``s3://bucket/name``), by fsspec.

    Attributes:
        root: path or URL without a slash at its end.
    """

    root: str

    @property
    def remote(self) -> bool:
        """Whether it is an address (``scheme://``) rather than a folder."""
        return "://" in self.root

    def _store(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingExtraError("fsspec", "remote", f"packed clips in {self.root}") from error
        try:
            store, path = url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"expected an object store that fsspec knows in {self.root}, got: {error}"
            ) from error
        return store, str(path)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        if not self.remote:
            return (Path(self.root) / name).is_file()
        store, path = self._store()
        return bool(store.exists(f"{path}/{name}"))

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            InputError: it is not there.
        """
        try:
            if not self.remote:
                return (Path(self.root) / name).stat().st_size
            store, path = self._store()
            return int(store.size(f"{path}/{name}"))
        except OSError as error:
            raise InputError(
                f"expected {name} in {self.root}, got: {error}; the copy may be incomplete"
            ) from error

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``start .. end`` of a file.

        Raises:
            InputError: it is not there or shorter.
        """
        try:
            if self.remote:
                store, path = self._store()
                data = bytes(store.cat_file(f"{path}/{name}", start=start, end=end))
            else:
                with (Path(self.root) / name).open("rb") as file:
                    file.seek(start)
                    data = file.read() if end is None else file.read(end - start)
        except OSError as error:
            raise InputError(
                f"expected {name} in {self.root}, got: {error}; the copy may be incomplete"
            ) from error
        if end is not None and len(data) != end - start:
            raise InputError(
                f"expected {end} bytes in {name} of {self.root}, it ends at {start + len(data)}; copy it again"
            )
        return data

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write; on a disk it appears when it is complete.

        Raises:
            OutputError: not writable, or the disk is full.
        """
        if not self.remote:
            with new_file(Path(self.root) / name) as temporary, temporary.open("wb") as file:
                yield file
            return
        store, path = self._store()
        try:
            with store.open(f"{path}/{name}", "wb") as file:
                yield file
        except OSError as error:
            raise OutputError(f"cannot write {name} to {self.root}: {error}") from error
