"""The zip container that ``torch.save`` writes: its members, checked against its directory, as tensors."""

import mmap
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from geo4d.errors import CheckpointError


@dataclass(frozen=True)
class Storage:
    """One storage of a ``torch.save`` file: what its numbers are, the member that holds them, how many they are."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass
class TensorFile:
    """The zip container that ``torch.save`` writes, memory mapped."""

    path: Path
    buffer: mmap.mmap
    records: dict[str, tuple[int, int]]
    root: str

    @classmethod
    def open(cls, path: Path) -> "TensorFile":
        """Map a file and find its members; nothing is unpickled.

        Raises:
            CheckpointError: not a zip file as ``torch.save`` writes it, or its directory and its members do not agree.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            with path.open("rb") as file:
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise CheckpointError(f"{path}: not a readable PyTorch file ({error})") from error
        records: dict[str, tuple[int, int]] = {}
        for entry in entries:
            if entry.filename in records:
                raise CheckpointError(f"{path}: two members are called {entry.filename!r}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise CheckpointError(
                    f"{path}: member {entry.filename!r} is compressed or encrypted; PyTorch writes neither"
                )
            if entry.file_size != entry.compress_size:
                raise CheckpointError(f"{path}: member {entry.filename!r} states two different sizes")
            records[entry.filename] = (cls._data_offset(path, buffer, entry), entry.file_size)
        roots = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
        if len(roots) != 1 or roots[0].count("/") != 1:
            raise CheckpointError(
                f"{path}: expected one 'data.pkl' as torch.save writes it, got {len(roots)}"
            )
        root = roots[0]
        if root + "byteorder" in records:
            offset, size = records[root + "byteorder"]
            if bytes(buffer[offset : offset + size]) != b"little":
                raise CheckpointError(
                    f"{path}: written on a big-endian machine; re-save it on a little-endian one"
                )
        return cls(path, buffer, records, root)

    @staticmethod
    def _data_offset(path: Path, buffer: mmap.mmap, entry: zipfile.ZipInfo) -> int:
        header = bytes(buffer[entry.header_offset : entry.header_offset + 30])
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise CheckpointError(
                f"{path}: member {entry.filename!r} has no header where the directory points"
            )
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        offset = entry.header_offset + 30 + name_length + extra_length
        if offset + entry.file_size > len(buffer):
            raise CheckpointError(f"{path}: member {entry.filename!r} is cut off; the file is incomplete")
        return offset

    def read(self, name: str) -> bytes:
        """Bytes of a member.

        Raises:
            KeyError: no such member.
        """
        offset, size = self.records[name]
        return bytes(self.buffer[offset : offset + size])

    def storage(self, storage: Storage) -> Tensor:
        """The flat tensor of a storage; its pages are read when they are touched."""
        name = f"{self.root}data/{storage.key}"
        if name not in self.records:
            raise CheckpointError(f"{self.path}: tensor data {name!r} is missing")
        offset, size = self.records[name]
        if storage.numel * storage.dtype.itemsize > size:
            raise CheckpointError(
                f"{self.path}: {name!r} should hold {storage.numel} values of {storage.dtype}, has {size} bytes"
            )
        if storage.numel == 0:
            return torch.empty(0, dtype=storage.dtype)
        return torch.frombuffer(self.buffer, dtype=storage.dtype, count=storage.numel, offset=offset)
