"""A result from its folder: checked, and its frames read when they are asked for."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geo4d.errors import OutputError
from geo4d.results.manifest import (
    ARRAYS,
    DIAGNOSTICS,
    FRAME_ARRAYS,
    LAYOUT,
    MANIFEST,
    MOST_BYTES,
    SUMS,
    diagnostics_fault,
    read_json,
    read_manifest,
)
from geo4d.results.places import run_folder
from geo4d.results.source import source_pictures
from geo4d.types import LazyFrames, Reconstruction

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from geo4d.formats.checksums import Checksums


def load_result(path: str | Path, keep: object = None) -> Reconstruction:
    """Open a result; maps are read when they are sliced, and what is read is compared with its recorded SHA-256.

    Args:
        keep: an object that must live as long as the arrays.
    Raises:
        OutputError: no result there, unfinished, incomplete, damaged, or of a newer format.
    """
    path = Path(path)
    if not path.is_dir():
        unfinished = (
            " (an unfinished run is there; finish it with --resume)"
            if not path.is_symlink() and run_folder(path).exists()
            else ""
        )
        raise OutputError(f"expected a geo4d result at {path}, found nothing{unfinished}")
    from zarr.storage import LocalStore

    store = LocalStore(path / ARRAYS, read_only=True)
    return assemble(path, store, lambda name: _count_chunks(path / ARRAYS / name), keep)


def assemble(
    path: Path,
    arrays_store: "Store",
    count_chunks: Callable[[str], int],
    keep: object = None,
    place: str = "",
) -> Reconstruction:
    """A result from the folder of its metadata and the store of its arrays.

    Args:
        count_chunks: how many pieces of an array of this name are there.
        keep: an object that must live as long as the arrays.
        place: what errors call the result; the folder, unless given.
    Raises:
        OutputError: as ``load_result``.
    """
    place = place or str(path)
    manifest = read_manifest(path)
    sums = _read_sums(path, manifest)
    diagnostics = read_json(path / DIAGNOSTICS)
    fault = diagnostics_fault(diagnostics)
    if fault is not None:
        raise OutputError(f"{path / DIAGNOSTICS} is damaged: {fault}")
    arrays = _open_arrays(place, manifest, sums, arrays_store, count_chunks)
    small = {
        name: _read(place, array, np.s_[...]) for name, array in arrays.items() if name not in FRAME_ARRAYS
    }
    size = (manifest["size"]["height"], manifest["size"]["width"])

    def frames(name: str) -> StoredFrames | None:
        return StoredFrames(arrays[name], place, keep) if name in arrays else None

    stored_rgb = frames("rgb")
    pictures = source_pictures(manifest["source"], path, small["source_frames"], tell=stored_rgb is None)
    if stored_rgb is not None:
        shape = stored_rgb.shape
        rgb: LazyFrames | None = LazyFrames(
            shape, np.dtype(np.float32), lambda t: stored_rgb[t].astype(np.float32) / 255
        )
    else:
        rgb = None if pictures is None else pictures.at(size)
    return Reconstruction(
        depth=StoredFrames(arrays["depth"], place, keep),
        confidence=StoredFrames(arrays["confidence"], place, keep),
        intrinsics=small["intrinsics"],
        times_s=small["times_s"],
        source_frames=small["source_frames"],
        scale_kind=manifest["scale_kind"],
        c2w=small.get("c2w"),
        dynamic=frames("dynamic"),
        rgb=rgb,
        source_rgb=pictures,
        reliable=small.get("reliable"),
        scene=small.get("scene"),
        # How to read the frames again may be a long list of names; the statements about it are in the notes.
        provenance={
            **manifest["provenance"],
            "source": {key: value for key, value in manifest["source"].items() if key != "reading"},
        },
        diagnostics=diagnostics,
    )


def _read_sums(path: Path, manifest: Mapping[str, Any]) -> "Checksums | None":
    """The list of sums, checked against the manifest, and the diagnostics against it; None for format 1."""
    from geo4d.formats.checksums import Checksums

    if manifest["version"] == 1:
        return None
    try:
        if (path / SUMS).stat().st_size > MOST_BYTES:
            raise OutputError(f"{path / SUMS} is longer than any list of sums")
        text = (path / SUMS).read_bytes()
        if hashlib.sha256(text).hexdigest() != manifest.get("sums_sha256"):
            raise OutputError(f"{path / SUMS} is damaged: its SHA-256 is not the one in {MANIFEST}")
        sums = Checksums.parse(text.decode(), manifest["num_frames"])
        found = hashlib.sha256((path / DIAGNOSTICS).read_bytes()).digest()
    except FileNotFoundError as error:
        raise OutputError(f"{path} is incomplete: {Path(error.filename).name} is missing") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"{path / SUMS} cannot be read: {error}") from error
    if found != sums.get(DIAGNOSTICS):
        raise OutputError(f"{path / DIAGNOSTICS} is damaged: its SHA-256 is not the recorded one")
    return sums


def _open_arrays(
    path: str,
    manifest: Mapping[str, Any],
    sums: "Checksums | None",
    arrays_store: "Store",
    count_chunks: Callable[[str], int],
) -> dict[str, Any]:
    """The arrays of a result by name; each has the shape, numbers and files that the manifest promises."""
    import zarr

    from geo4d.formats.checksums import ChecksummedStore

    store = ChecksummedStore(arrays_store, sums, ARRAYS + "/")
    names = [name for name in manifest["arrays"] if name in LAYOUT]
    with _damage_in(path):
        group: Any = zarr.open_group(store, mode="r", zarr_format=3)
        arrays = {name: group[name] for name in names}
        for name, array in arrays.items():
            fault = _array_fault(name, array, manifest)
            if fault is not None:
                raise OutputError(f"{path} is damaged: {name} {fault}")
    for name, array in arrays.items():
        chunks = math.prod(math.ceil(n / c) for n, c in zip(array.shape, array.chunks, strict=True))
        missing = chunks - count_chunks(name)
        if missing > 0:
            raise OutputError(f"{path} is incomplete: {missing} of {chunks} pieces of {name} are missing")
        store.chunk_bytes[name] = math.prod(array.chunks) * array.dtype.itemsize
    return arrays


def _array_fault(name: str, array: Any, manifest: Mapping[str, Any]) -> str | None:
    """What is not as a writer of results makes it; nothing is unpacked, and no memory taken, before this is asked."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if not hasattr(array, "shape"):
        return "is no array"
    behind, kinds = LAYOUT[name]
    sides = {"H": manifest["size"]["height"], "W": manifest["size"]["width"]}
    shape = (manifest["num_frames"], *(n if isinstance(n, int) else sides[n] for n in behind))
    if tuple(array.shape) != shape:
        return f"has the shape {tuple(array.shape)!r:.80}, expected {shape}"
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        return f"holds numbers of type {array.dtype}"
    chunks = (1, *shape[1:]) if name in FRAME_ARRAYS else shape
    if tuple(array.chunks) != chunks or getattr(array, "shards", None) is not None:
        return f"is stored in pieces of {tuple(array.chunks)!r:.80}, expected {chunks}"
    known = (BloscCodec, Crc32cCodec, ZstdCodec)
    if array.filters or not all(isinstance(codec, known) for codec in array.compressors):
        return "is packed in a way that geo4d does not write"
    return None


def _count_chunks(folder: Path) -> int:
    return sum(len(files) - ("zarr.json" in files) for _, _, files in os.walk(folder))


@contextmanager
def _damage_in(path: str) -> Iterator[None]:
    """Whatever zarr and its codecs raise on damaged data becomes one error; they raise nearly everything."""
    try:
        yield
    except (OutputError, IndexError, MemoryError):
        raise
    except Exception as error:
        raise OutputError(f"{path} cannot be read, it is damaged: {error}") from error


def _read(path: str, array: Any, key: Any) -> np.ndarray:
    with _damage_in(f"{path}/{ARRAYS}/{array.basename}"):
        return np.asarray(array[key])


@dataclasses.dataclass(frozen=True)
class StoredFrames:
    """An array of a result: slices are numpy arrays read from disk, float maps as float32."""

    _array: Any
    _path: str
    _keep: object = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, ...] of the stored array."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype:
        """What an index gives: float32 for all stored floats, else the stored type."""
        return np.dtype(np.float32) if self._array.dtype.kind == "f" else np.dtype(self._array.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return _read(self._path, self._array, key).astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)
