"""A result in an object store: published object by object with its manifest last, and read back lazily.

Readers take nothing for a result that has no manifest, and compare every object with its recorded SHA-256; so they see a
complete result or none, whatever a run that is just publishing, or was killed at it, has left.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from geo4d.errors import OutputError
from geo4d.formats.objects import Objects
from geo4d.results.manifest import (
    ARRAYS,
    DIAGNOSTICS,
    FORMAT,
    MANIFEST,
    SUMS,
    WINDOWS,
    is_plain_folder,
    own_files,
    read_manifest,
)
from geo4d.results.reader import assemble
from geo4d.results.temporary import TemporaryFolder
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

READS = 4
"""How often an object is read whose SHA-256 is not the recorded one: its answer may have been cut on the way."""


def load_remote(url: str) -> Reconstruction:
    """Open a result in a store; maps are read when they are sliced, and compared with their recorded SHA-256.

    Raises:
        OutputError: no result there, unfinished, incomplete, damaged, or the store does not answer.
        MissingExtraError: the package for the store is not installed.
    """
    objects, temporary = Objects(url), TemporaryFolder()
    folder = temporary.path / "result"
    folder.mkdir()
    for attempt in range(READS):
        try:
            return _open(objects, folder)
        except _Absent as error:
            raise OutputError(str(error)) from None
        except OutputError as error:
            said = str(error).replace(str(folder), objects.url)
            if attempt + 1 == READS:
                raise OutputError(said) from error
            log.warning("%s; read once more", said)
            time.sleep(objects.wait_s * 2**attempt)
    raise AssertionError("nothing was read")


class _Absent(OutputError):
    """There is no result: no reason to look again."""


def _open(objects: Objects, folder: Path) -> Reconstruction:
    _fetch_manifest(objects, folder)
    for name in (SUMS, DIAGNOSTICS):
        data = objects.read(name)
        if data is not None:  # format 1 has no sums; else what is missing is said by who reads it
            (folder / name).write_bytes(data)
    chunks = Counter(
        name.split("/")[1]
        for name in objects.list()
        if name.startswith(ARRAYS + "/") and name.count("/") >= 2 and not name.endswith("/zarr.json")
    )
    return assemble(folder, CheckedObjects(objects), lambda name: chunks[name], place=objects.url)


def _fetch_manifest(objects: Objects, folder: Path) -> None:
    data = objects.read(MANIFEST)
    if data is None:
        raise _Absent(
            f"expected a geo4d result at {objects.url}, found no {MANIFEST}: nothing is there, or a run is just "
            "publishing it or was ended at it"
        )
    (folder / MANIFEST).write_bytes(data)


def remote_manifest(url: str) -> dict[str, Any] | None:
    """The manifest of a result in a store; None where there is none.

    Raises:
        OutputError: it is not ours, damaged, or the store does not answer.
    """
    objects, temporary = Objects(url), TemporaryFolder()
    try:
        _fetch_manifest(objects, temporary.path)
    except _Absent:
        return None
    return read_manifest(temporary.path)


def check_remote_output(url: str, *, overwrite: bool) -> None:
    """Refuse a prefix that must not be written to, before anything is computed.

    What a killed run has uploaded without a manifest may be replaced: no reader takes it for a result.

    Raises:
        OutputError: a result is there and ``overwrite`` is not given, or objects that geo4d did not write.
        MissingExtraError: the package for the store is not installed.
    """
    objects = Objects(url)
    names = objects.list()
    foreign = sorted(name for name in names if not _is_ours(name))
    if foreign:
        raise OutputError(
            f"{url} holds objects that geo4d did not write ({', '.join(foreign[:3])}); choose another place"
        )
    if MANIFEST not in names:
        return
    if json_format(objects.read(MANIFEST)) != FORMAT:
        raise OutputError(f"{url} holds a {MANIFEST} that is not of geo4d; choose another place")
    if not overwrite:
        raise OutputError(f"{url} exists; choose another place, or replace it with --overwrite")


def json_format(data: bytes | None) -> Any:
    """The ``format`` that a JSON text states; None for anything else."""
    try:
        value = json.loads(data or b"")
    except ValueError:
        return None
    return value.get("format") if isinstance(value, dict) else None


def _is_ours(name: str) -> bool:
    return name in (MANIFEST, SUMS, DIAGNOSTICS) or name.startswith((ARRAYS + "/", WINDOWS + "/"))


def upload_result(folder: Path, url: str) -> None:
    """Publish a result of a disk, in place of one that is there: its manifest first goes and last comes.

    Raises:
        OutputError: the store does not answer, refuses, or does not have what was written.
    """
    check_remote_output(url, overwrite=True)
    objects = Objects(url)
    files = {path.relative_to(folder).as_posix(): path for path in own_files(folder)}
    manifest = files.pop(MANIFEST)
    objects.remove([MANIFEST])
    objects.remove(set(objects.list()) - set(files))
    objects.write_all(files.items())
    there = objects.list()
    wrong = [name for name, path in files.items() if there.get(name) != path.stat().st_size]
    if wrong:
        raise OutputError(
            f"{url}: {len(wrong)} of {len(files)} objects are not there as they were written, such as {wrong[0]}; "
            "publish again, and let nobody else write there"
        )
    objects.write(MANIFEST, manifest)
    if objects.read(MANIFEST) != manifest.read_bytes():
        raise OutputError(
            f"{url}: the {MANIFEST} that is there is not the one that was written; publish again"
        )


def remove_local(folder: Path) -> None:
    """Remove the files of a result that is published elsewhere, its manifest first; what others put there stays."""
    files = list(own_files(folder))
    for path in files:
        path.unlink()
    for below in sorted({parent for path in files for parent in path.parents}, key=lambda p: -len(p.parts)):
        if below.is_relative_to(folder) and is_plain_folder(below):
            with suppress(OSError):  # something else lies in it
                below.rmdir()


class CheckedObjects(Store):
    """The arrays of a result as a zarr store that is only read, for ``ChecksummedStore``.

    Args:
        objects: of the result.
    """

    def __init__(self, objects: Objects) -> None:
        super().__init__(read_only=True)
        self._objects = objects
        self.root, self.reads = f"{objects.url}/{ARRAYS}", READS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckedObjects) and other.root == self.root

    @property
    def supports_listing(self) -> bool:
        """No: what is there is known from the manifest."""
        return False

    @property
    def supports_writes(self) -> bool:
        """No."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """No."""
        return False

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object, or part of it; None where it is not there."""
        data = await asyncio.to_thread(self._objects.read, f"{ARRAYS}/{key}")
        if data is None:
            return None
        if isinstance(byte_range, RangeByteRequest):
            data = data[byte_range.start : byte_range.end]
        elif isinstance(byte_range, OffsetByteRequest):
            data = data[byte_range.offset :]
        elif isinstance(byte_range, SuffixByteRequest):
            data = data[-byte_range.suffix :]
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several objects or parts of them."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether an object is there."""
        return await asyncio.to_thread(self._objects.read, f"{ARRAYS}/{key}") is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Never."""
        raise OutputError(f"{self.root} is only read")

    async def delete(self, key: str) -> None:
        """Never."""
        raise OutputError(f"{self.root} is only read")

    async def list(self) -> AsyncIterator[str]:
        """Never: ``supports_listing`` is False, names come from the manifest."""
        raise OutputError(f"{self.root} is not listed")
        yield ""

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Never, as ``list``."""
        raise OutputError(f"{self.root} is not listed")
        yield ""

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Never, as ``list``."""
        raise OutputError(f"{self.root} is not listed")
        yield ""
