"""Named arrays in files: npz, zarr groups of frames, and one compressed file per set of arrays."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.files import existing_file, new_file


def save_npz(path: str | Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = True) -> None:
    """Write arrays as npz; complete or absent.

    Raises:
        OutputError: not writable, or the disk is full.
    """
    with new_file(path) as temporary, temporary.open("wb") as file:
        writer: Any = np.savez_compressed if compressed else np.savez
        writer(file, **arrays)


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of an npz; never unpickles.

    Raises:
        InputError: missing, not an npz, damaged, or holding objects instead of numbers.
    """
    path = existing_file(path, "an npz file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} is not a readable npz of plain arrays: {error}") from error


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> int:
    """Write a few arrays and JSON values as one compressed file: a zarr v3 group in a zip. Complete or absent.

    Returns:
        size of the file in bytes.
    Raises:
        OutputError: not writable, or the disk is full.
    """
    import zarr
    from zarr.storage import ZipStore

    with new_file(path) as temporary:
        with ZipStore(temporary, mode="w") as store:
            group = zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
            for name, array in arrays.items():
                group.create_array(name, data=array, chunks=_whole(array.shape), compressors=_compressors())
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        size = temporary.stat().st_size
    return size


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what ``save_arrays`` wrote: arrays and JSON values.

    Raises:
        InputError: missing or damaged.
    """
    import zarr
    from zarr.storage import ZipStore

    path = existing_file(path, "a file of compressed arrays")
    try:
        with zipfile.ZipFile(path) as whole:
            damaged = whole.testzip()
        if damaged is not None:
            raise InputError(f"{path} is damaged: wrong check sum of {damaged}")
        with ZipStore(path, mode="r") as store:
            group = zarr.open_group(store, mode="r")
            arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
            return arrays, dict(group.attrs)
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def create_frames(group: Any, name: str, shape: tuple[int, ...], dtype: Any, fill_value: Any) -> Any:
    """A zarr array with one compressed, check-summed chunk per frame.

    Args:
        group: an open zarr group.
        shape: frames first.
        fill_value: of frames not written; every chunk is written, so readers can tell a missing frame.
    """
    return group.create_array(
        name,
        shape=shape,
        chunks=(1, *_whole(shape[1:])),
        dtype=dtype,
        compressors=_compressors(),
        fill_value=fill_value,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )


def _compressors() -> list[Any]:
    from zarr.codecs import BloscCodec, Crc32cCodec

    return [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()]


def _whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(length, 1) for length in shape)
