"""Named arrays in files: npz, zarr groups of frames, and one compressed file per set of arrays."""

import hashlib
import json
import logging
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.files import existing_file, new_file

log = logging.getLogger(__name__)

MOST_NPZ_BYTES = 4 * 2**30
"""What the arrays of an npz may take in memory, where the caller states no limit of its own."""

_SUM_LENGTH = 64

_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # an unknown compression
    OverflowError,
    RecursionError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What damage in a zip of arrays raises while it is read."""


def save_npz(path: str | Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = True) -> None:
    """Write arrays as npz; complete or absent.

    Raises:
        OutputError: not writable, or the disk is full.
    """
    with new_file(path) as temporary, temporary.open("wb") as file:
        writer: Any = np.savez_compressed if compressed else np.savez
        writer(file, **arrays)


def load_npz(
    path: str | Path, names: Collection[str] | None = None, *, most_bytes: int = MOST_NPZ_BYTES
) -> dict[str, np.ndarray]:
    """Read arrays of an npz; never unpickles. What an array says about itself is checked before memory is taken for it.

    Args:
        names: which arrays to read, those that are there; None: all.
        most_bytes: upper limit for the arrays together, unpacked.
    Raises:
        InputError: missing, not an npz, damaged, larger than it may be, or holding objects instead of numbers.
    """
    path = existing_file(path, "an npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = {
                name: entry
                for entry in archive.infolist()
                if (name := entry.filename.removesuffix(".npy")) != entry.filename
                and (names is None or name in names)
            }
            total = sum(_npy_shape(archive, entry)[1] for entry in wanted.values())
            if total > most_bytes:
                raise InputError(
                    f"{path} holds {total} bytes of arrays, more than the {most_bytes} that are read here; "
                    "store fewer frames or smaller maps"
                )
            arrays = {}
            for name, entry in wanted.items():
                with archive.open(entry) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
            return arrays
    except _DAMAGE as error:
        raise InputError(f"{path} is not a readable npz of plain arrays: {error}") from error


def load_npy(path: str | Path) -> np.ndarray:
    """Read an npy file; never unpickles. What it says about itself is checked before memory is taken for it.

    Raises:
        InputError: missing, no npy, damaged, or holding objects instead of numbers.
    """
    path = existing_file(path, "an npy file")
    try:
        with path.open("rb") as file:
            _require_npy(file, path.stat().st_size, "it")
            file.seek(0)
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except _DAMAGE as error:
        raise InputError(f"{path} is not a readable npy of numbers: {error}") from error


def npz_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in an npz by their headers; nothing else is unpacked.

    Raises:
        InputError: missing, damaged, or not an npz of numbers.
    """
    path = existing_file(path, "an npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                entry.filename.removesuffix(".npy"): _npy_shape(archive, entry)[0]
                for entry in archive.infolist()
                if entry.filename.endswith(".npy")
            }
    except _DAMAGE as error:
        raise InputError(f"{path} is not a readable npz of plain arrays: {error}") from error


def _npy_shape(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], int]:
    """Shape and bytes of an array by its header, which must agree with the size of the member."""
    with archive.open(entry) as file:
        return _require_npy(file, entry.file_size, entry.filename)


def _require_npy(file: Any, num_bytes: int, name: str) -> tuple[tuple[int, ...], int]:
    """Shape and bytes of the array in an npy file of so many bytes; ValueError where that is not what it holds."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{name} is of npy version {version}, expected 1.0 or 2.0")
    header = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects instead of numbers")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or header + size != num_bytes:
        raise ValueError(f"{name} states shape {shape} of {dtype}, which does not fit its {num_bytes} bytes")
    return tuple(shape), size


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> int:
    """Write a few arrays and JSON values as one compressed file: a zarr v3 group in a zip. Complete or absent.

    The zip's comment is the SHA-256 of everything before it and of the file's name: a flipped bit is found, and so is
    a file that lies under the name of another.

    Returns:
        size of the file in bytes.
    Raises:
        OutputError: not writable, or the disk is full.
    """
    import zarr

    path = Path(path)
    with new_file(path) as temporary:
        with _zip_store(temporary, "w") as store:
            group = zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
            for name, array in arrays.items():
                group.create_array(
                    name, data=array, chunks=_whole(array.shape), compressors=_compressors(array.dtype)
                )
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = bytes(_SUM_LENGTH)
        with temporary.open("rb+") as file:
            digest = _digest_of(file, path.name)
            file.seek(-_SUM_LENGTH, os.SEEK_END)
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        size = temporary.stat().st_size
    return size


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what ``save_arrays`` wrote: arrays and JSON values.

    Raises:
        InputError: missing, damaged, or written under another name.
    """
    import zarr

    path = existing_file(path, "a file of compressed arrays")
    with path.open("rb") as file:
        digest = _digest_of(file, path.name)
        stored = file.read()
    if digest != stored:
        raise InputError(f"{path} is damaged, or is not the file that was written under this name")
    try:
        with _zip_store(path, "r") as store:
            group = zarr.open_group(store, mode="r")
            arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
            return arrays, dict(group.attrs)
    except (*_DAMAGE, KeyError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def load_attributes(path: str | Path) -> dict[str, Any]:
    """The JSON values alone of what ``save_arrays`` wrote; of the file only they are read and checked.

    Raises:
        InputError: missing or damaged.
    """
    path = existing_file(path, "a file of compressed arrays")
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read("zarr.json"))["attributes"])
    except (*_DAMAGE, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


@contextmanager
def _zip_store(path: Path, mode: Literal["r", "w"]) -> Iterator[Any]:
    """zarr's store in a zip, closed at the end; what kept it from being opened is not hidden by its closing."""
    from zarr.storage import ZipStore

    store = ZipStore(path, mode=mode)
    try:
        yield store
    finally:
        with suppress(AttributeError):  # which its ``close`` raises where it was never opened
            store.close()


def holds_arrays(path: Path) -> bool:
    """Whether a file of ``save_arrays`` is there and whole; says so when it is there and damaged."""
    if not path.is_file():
        return False
    try:
        load_arrays(path)
    except InputError as error:
        log.warning("%s; it is computed again", error)
        return False
    return True


def _digest_of(file: BinaryIO, name: str) -> bytes:
    """Hex SHA-256 of a name and of a file but for its last bytes, which hold it; the file is left before them."""
    remaining = max(file.seek(0, os.SEEK_END) - _SUM_LENGTH, 0)
    file.seek(0)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape") + b"\0")
    while remaining and (block := file.read(min(remaining, 2**20))):
        digest.update(block)
        remaining -= len(block)
    return digest.hexdigest().encode()


def create_frames(
    group: Any, name: str, shape: tuple[int, ...], dtype: Any, fill_value: Any, **attributes: str
) -> Any:
    """A zarr array with one compressed, check-summed chunk per frame.

    Args:
        group: an open zarr group.
        shape: frames first.
        fill_value: of frames not written; every chunk is written, so readers can tell a missing frame.
        attributes: said with it.
    """
    return group.create_array(
        name,
        shape=shape,
        chunks=(1, *_whole(shape[1:])),
        dtype=dtype,
        compressors=_compressors(dtype),
        fill_value=fill_value,
        attributes=attributes,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )


def create_whole(group: Any, name: str, values: np.ndarray, **attributes: str) -> Any:
    """A small zarr array in one chunk, compressed and check-summed as frames are, and what is said with it."""
    return group.create_array(
        name,
        data=values,
        chunks=_whole(values.shape),
        compressors=_compressors(values.dtype),
        attributes=attributes,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )


def _compressors(dtype: Any) -> list[Any]:
    """Bits of equal weight beside each other, then the fastest zstd: half the time of level 3 on whole bytes, and files
    that are a tenth larger (maps in float16)."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    shuffle: Literal["shuffle", "bitshuffle"] = "bitshuffle" if np.dtype(dtype).itemsize > 1 else "shuffle"
    return [BloscCodec(cname="zstd", clevel=1, shuffle=shuffle), Crc32cCodec()]


def _whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(length, 1) for length in shape)
