"""SHA-256 sums of the files of a zarr group: recorded while it is written, compared while it is read.

The sums are kept by file name, so a file that took the place of another is found as well as a flipped bit. They are
stored as ``sha256sum`` writes them, and ``sha256sum --check`` reads them.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from geo4d.errors import OutputError

_CHUNK = re.compile(r"(?P<array>.+)/c\.(?P<frame>\d+)(?P<rest>(?:\.0)*)")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SIZE = hashlib.sha256().digest_size
_NONE = bytes(_SIZE)


class Checksums:
    """SHA-256 of files by their path, ``/`` between the parts. Those of frames are packed: a long video has many."""

    def __init__(self) -> None:
        self._frames: dict[tuple[str, str], bytearray] = {}
        self._others: dict[str, bytes] = {}

    def __setitem__(self, path: str, digest: bytes) -> None:
        if chunk := _CHUNK.fullmatch(path):
            packed = self._frames.setdefault((chunk["array"], chunk["rest"]), bytearray())
            start = int(chunk["frame"]) * _SIZE
            packed.extend(bytes(max(0, start + _SIZE - len(packed))))
            packed[start : start + _SIZE] = digest
        else:
            self._others[path] = digest

    def get(self, path: str) -> bytes | None:
        """The sum of a file, or None where none is known."""
        if chunk := _CHUNK.fullmatch(path):
            start = int(chunk["frame"]) * _SIZE
            found = bytes(self._frames.get((chunk["array"], chunk["rest"]), b"")[start : start + _SIZE])
            return found if found and found != _NONE else None
        return self._others.get(path)

    def __iter__(self) -> Iterator[str]:
        yield from self._others
        for (array, rest), packed in self._frames.items():
            for frame in range(len(packed) // _SIZE):
                path = f"{array}/c.{frame}{rest}"
                if self.get(path) is not None:
                    yield path

    def text(self) -> str:
        """One line per file, as ``sha256sum`` writes them."""
        return "".join(f"{(self.get(path) or _NONE).hex()}  {path}\n" for path in self)

    @classmethod
    def parse(cls, text: str, most_frames: int) -> "Checksums":
        """Read what ``text`` gave.

        Args:
            most_frames: frames of the result; none may have a higher number.
        Raises:
            ValueError: a line is something else.
        """
        sums = cls()
        for number, line in enumerate(text.splitlines(), start=1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"expected 'SHA-256  path' in line {number}, got {line[:80]!r}")
            chunk = _CHUNK.fullmatch(match[2])
            if chunk is not None and (len(chunk["frame"]) > 12 or int(chunk["frame"]) >= most_frames):
                raise ValueError(f"line {number} names a frame beyond the {most_frames} of the result")
            sums[match[2]] = bytes.fromhex(match[1])
        return sums


class ChecksummedStore(WrapperStore[Store]):
    """A zarr store in a folder whose files are summed when written, and compared when read.

    Args:
        store: the folder, or another store that has its place as ``root`` and, where answers may be cut on their way, as
            ``reads`` how often something is read before it counts as damaged.
        sums: filled by writing, asked by reading; None: of a result that has no sums. There, too, a missing chunk is an
            error and not a fill value.
        prefix: what precedes the store's own keys in ``sums``.
    """

    def __init__(self, store: Store, sums: Checksums | None = None, prefix: str = "") -> None:
        super().__init__(store)
        self._sums = sums
        self._prefix = prefix
        self.chunk_bytes: dict[str, int] = {}
        """Array -> bytes of a whole chunk; a chunk that states another size is refused before it is unpacked."""

    def _with_store(self, store: Store) -> "ChecksummedStore":
        again = type(self)(store, self._sums, self._prefix)
        again.chunk_bytes = self.chunk_bytes
        return again

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a member, compared with its recorded SHA-256.

        Raises:
            OutputError: missing, or not what was recorded.
        """
        whole = await self._store.get(key, prototype)
        place = f"{getattr(self._store, 'root', '')}/{key}"
        array, _, name = key.partition("/")
        is_chunk = name.startswith("c") and array in self.chunk_bytes
        known = None if self._sums is None else self._sums.get(self._prefix + key)
        if whole is None:
            if known is not None or is_chunk:
                raise OutputError(f"{place} is missing; get the result again or repeat the run")
            return None
        data = whole.to_bytes()
        if self._sums is not None:
            if known is None:
                raise OutputError(f"{place} does not belong to the result: it is not in its list of files")
            for _ in range(getattr(self._store, "reads", 1) - 1):
                if known == await asyncio.to_thread(_digest, data):
                    break
                again = await self._store.get(key, prototype)
                whole, data = (again, again.to_bytes()) if again is not None else (whole, data)
            if known != await asyncio.to_thread(_digest, data):
                raise OutputError(
                    f"{place} is damaged: its SHA-256 is not the recorded one; get the result again or repeat the run"
                )
        if is_chunk and (stated := stated_size(data)) is not None and stated != self.chunk_bytes[array]:
            raise OutputError(
                f"{place} is damaged: expected {self.chunk_bytes[array]} bytes unpacked, it states {stated}"
            )
        return whole if byte_range is None else await self._store.get(key, prototype, byte_range)

    async def get_partial_values(self, prototype: BufferPrototype, key_ranges: Any) -> list[Buffer | None]:
        """Several members or parts of them, each checked as by ``get``."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: Buffer) -> None:
        """Write a member and record its SHA-256."""
        await self._store.set(key, value)
        if self._sums is not None:
            self._sums[self._prefix + key] = await asyncio.to_thread(_digest, value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a member that is not there yet."""
        if not await self._store.exists(key):
            await self.set(key, value)

    async def _set_many(self, values: Any) -> None:
        for key, value in values:
            await self.set(key, value)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def stated_size(data: bytes) -> int | None:
    """Size that a Blosc or Zstandard chunk says it has unpacked; None where it says nothing."""
    if data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 5:  # Zstandard, RFC 8878, 3.1.1.1
        flags = data[4]
        single, kind = bool(flags & 0x20), flags >> 6
        width = (1 if single else 0, 2, 4, 8)[kind]
        start = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
        if not width or len(data) < start + width:
            return None
        return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    if len(data) >= 16 and data[0] == 2:  # Blosc 1: version, codec version, flags, item size, size, ..
        return int.from_bytes(data[4:8], "little")
    return None
