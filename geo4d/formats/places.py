"""Files of one folder, on a disk or in an object store, read and written by name."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from geo4d.errors import InputError, MissingExtraError, OutputError
from geo4d.formats.files import new_file, output_errors
from geo4d.formats.objects import ask


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
        """Whether there is a file of this name.

        Raises:
            InputError: the store does not answer, or refuses.
        """
        if not self.remote:
            return (Path(self.root) / name).is_file()
        store, path = self._store()
        return ask(
            lambda: bool(store.exists(f"{path}/{name}")), self.root, f"be asked for {name}", InputError
        )

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            InputError: it is not there, or the store does not answer.
        """
        try:
            if not self.remote:
                return (Path(self.root) / name).stat().st_size
            store, path = self._store()
            return ask(
                lambda: int(store.size(f"{path}/{name}")), self.root, f"be asked for {name}", InputError
            )
        except OSError as error:
            raise InputError(
                f"expected {name} in {self.root}, got: {error}; the copy may be incomplete"
            ) from error

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``start .. end`` of a file.

        Raises:
            InputError: it is not there or shorter, or the store does not answer.
        """
        try:
            if self.remote:
                return self._read_object(name, start, end)
            with (Path(self.root) / name).open("rb") as file:
                file.seek(start)
                data = file.read() if end is None else file.read(end - start)
        except OSError as error:
            raise InputError(
                f"expected {name} in {self.root}, got: {error}; the copy may be incomplete"
            ) from error
        return self._whole(data, name, start, end)

    def _read_object(self, name: str, start: int, end: int | None) -> bytes:
        store, path = self._store()

        def give() -> bytes:
            data = bytes(store.cat_file(f"{path}/{name}", start=start, end=end))
            if end is not None and start + len(data) < end <= store.size(f"{path}/{name}"):
                raise ConnectionError(f"{len(data)} of {end - start} bytes came")
            return data

        return self._whole(ask(give, self.root, f"give {name}", InputError), name, start, end)

    def _whole(self, data: bytes, name: str, start: int, end: int | None) -> bytes:
        if end is not None and len(data) != end - start:
            raise InputError(
                f"expected {end} bytes in {name} of {self.root}, it ends at {start + len(data)}; copy it again"
            )
        return data

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write, which appears when it is complete; one for a store lies in ``TMPDIR`` until then.

        Raises:
            OutputError: not writable, the disk is full, or the store does not answer or refuses.
        """
        if not self.remote:
            with new_file(Path(self.root) / name) as temporary, temporary.open("wb") as file:
                yield file
            return
        store, path = self._store()
        with output_errors(Path(tempfile.gettempdir())):
            folder = tempfile.TemporaryDirectory(prefix="geo4d-upload-")
        with folder:
            made = Path(folder.name) / "object"
            with output_errors(made), made.open("wb") as file:
                yield file
            try:
                ask(
                    lambda: store.put_file(str(made), f"{path}/{name}"),
                    self.root,
                    f"take {name}",
                    OutputError,
                )
            except FileNotFoundError as error:
                raise OutputError(
                    f"{self.root} could not take {name}: {error}; is the bucket there?"
                ) from error
