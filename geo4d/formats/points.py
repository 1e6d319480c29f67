"""Point clouds, and binary PLY, streamed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Int, UInt8

from geo4d.errors import InputError
from geo4d.formats.files import existing_file, new_file

_COUNT_DIGITS = 12
_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4", "float": "<f4",
    "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4",
    "float32": "<f4", "float64": "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class PointCloud:
    """N points of one or more frames.

    Attributes:
        positions: in the frame and unit that the writer states.
        colours: RGB, or None.
        confidence: in [0, 1], or None.
        frames: index of the frame every point comes from, or None.
    """

    positions: Float[np.ndarray, "N 3"]
    colours: UInt8[np.ndarray, "N 3"] | None = None
    confidence: Float[np.ndarray, " N"] | None = None
    frames: Int[np.ndarray, " N"] | None = None

    @property
    def num_points(self) -> int:
        """Number of points."""
        return self.positions.shape[0]

    def select(self, keep: np.ndarray) -> "PointCloud":
        """The points that ``keep`` (mask or indices) names."""
        fields: dict[str, Any] = {
            n: None if value is None else value[keep] for n, value in vars(self).items()
        }
        return PointCloud(**fields)


def save_ply(path: str | Path, clouds: Iterable[PointCloud], comments: Sequence[str] = ()) -> int:
    """Write clouds one after the other into one binary little-endian PLY; only one is held at a time.

    All clouds must have the same optional fields. Positions are float32.

    Args:
        comments: lines for the header (convention, units, frames).
    Returns:
        number of points written.
    """
    count = 0
    with new_file(path) as temporary, temporary.open("wb") as file:
        fields: list[tuple[str, str, str]] = []
        count_position = 0
        for cloud in clouds:
            if not fields:
                fields = _ply_fields(cloud)
                count_position = _write_ply_header(file, fields, comments)
            elif fields != _ply_fields(cloud):
                raise ValueError("expected clouds with the same fields, got different ones")
            file.write(_ply_record(cloud, fields).tobytes())
            count += cloud.num_points
        if not fields:
            count_position = _write_ply_header(
                file, _ply_fields(PointCloud(np.zeros((0, 3), np.float32))), comments
            )
        file.seek(count_position)
        file.write(str(count).zfill(_COUNT_DIGITS).encode())
    return count


def _ply_fields(cloud: PointCloud) -> list[tuple[str, str, str]]:
    fields = [("x", "float", "<f4"), ("y", "float", "<f4"), ("z", "float", "<f4")]
    if cloud.colours is not None:
        fields += [("red", "uchar", "u1"), ("green", "uchar", "u1"), ("blue", "uchar", "u1")]
    if cloud.confidence is not None:
        fields.append(("confidence", "float", "<f4"))
    if cloud.frames is not None:
        fields.append(("frame", "int", "<i4"))
    return fields


def _write_ply_header(file: Any, fields: list[tuple[str, str, str]], comments: Sequence[str]) -> int:
    """Write the header with room for the number of points; returns where that number stands."""
    file.write(b"ply\nformat binary_little_endian 1.0\n")
    for comment in comments:
        file.write(f"comment {' '.join(comment.split())}\n".encode("ascii", "replace"))
    file.write(b"element vertex ")
    position = file.tell()
    file.write(b"0" * _COUNT_DIGITS + b"\n")
    for name, kind, _ in fields:
        file.write(f"property {kind} {name}\n".encode())
    file.write(b"end_header\n")
    return position


def _ply_record(cloud: PointCloud, fields: list[tuple[str, str, str]]) -> np.ndarray:
    record = np.zeros(cloud.num_points, [(name, kind) for name, _, kind in fields])
    for axis, name in enumerate("xyz"):
        record[name] = cloud.positions[:, axis]
    if cloud.colours is not None:
        for axis, name in enumerate(("red", "green", "blue")):
            record[name] = cloud.colours[:, axis]
    if cloud.confidence is not None:
        record["confidence"] = cloud.confidence
    if cloud.frames is not None:
        record["frame"] = cloud.frames
    return record


def load_ply(path: str | Path) -> PointCloud:
    """Read the vertices of a binary little-endian or ASCII PLY.

    Raises:
        InputError: missing, not a PLY, malformed, truncated, or without x, y, z.
    """
    path = existing_file(path, "a PLY file")
    try:
        with path.open("rb") as file:
            record = _read_vertices(file, path)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"expected a PLY file, but {path} is malformed: {error}") from error
    names = set(record.dtype.names or ())
    colour_names = ("red", "green", "blue")
    colours = np.stack([record[n] for n in colour_names], 1) if names >= set(colour_names) else None
    if colours is not None and colours.dtype != np.uint8:
        raise InputError(f"expected colours of 8 bits in {path}, got {colours.dtype}")
    return PointCloud(
        positions=np.stack([record[name] for name in "xyz"], axis=1),
        colours=colours,
        confidence=record["confidence"].astype(np.float32) if "confidence" in names else None,
        frames=record["frame"].astype(np.int32) if "frame" in names else None,
    )


def _read_vertices(file: BinaryIO, path: Path) -> np.ndarray:
    """The vertices as a structured array; what the header promises is compared with the size of the file first."""
    if file.readline(16).strip() != b"ply":
        raise InputError(f"expected a PLY file, but {path} does not start with 'ply'")
    layout, count, in_vertex = b"", 0, False
    fields: list[tuple[str, str]] = []
    while (line := file.readline(4096)).strip() != b"end_header":
        words = line.split()
        if not line or not words:
            raise InputError(f"expected a PLY header that ends with end_header in {path}")
        if words[0] == b"format":
            layout = words[1]
        elif words[0] == b"element":
            in_vertex = words[1] == b"vertex"
            if in_vertex:
                count = int(words[2])
            elif not fields and int(words[2]) != 0:
                raise InputError(
                    f"expected the vertices first in {path}, found the element {words[1].decode()!r}"
                )
        elif words[0] == b"property" and in_vertex:
            if words[1].decode() not in _PLY_TYPES:
                raise InputError(
                    f"expected scalar vertex properties in {path}, got {line.decode().strip()!r}"
                )
            fields.append((words[2].decode(), _PLY_TYPES[words[1].decode()]))
    if not {"x", "y", "z"} <= {name for name, _ in fields}:
        raise InputError(f"expected vertices with x, y and z in {path}")
    dtype = np.dtype(fields)
    if layout not in (b"ascii", b"binary_little_endian"):
        raise InputError(f"expected an ASCII or binary little-endian PLY, got {layout!r} in {path}")
    least = 2 * len(fields) if layout == b"ascii" else dtype.itemsize
    # The last line of a text may lack its end.
    if count < 0 or path.stat().st_size - file.tell() < count * least - (layout == b"ascii"):
        raise InputError(f"expected {count} points in {path}, but the file is truncated")
    if layout == b"binary_little_endian":
        return np.frombuffer(file.read(count * dtype.itemsize), dtype)
    record = np.zeros(count, dtype)
    for row in range(count):
        words = file.readline(65536).split()
        if len(words) < len(fields):
            raise InputError(f"expected {len(fields)} numbers for point {row} in {path}, got {len(words)}")
        record[row] = tuple(float(word) for word in words[: len(fields)])
    return record


class VoxelFilter:
    """Keeps the first point in every cube of space, over any number of clouds; memory grows with the cubes seen."""

    def __init__(self, size: float) -> None:
        """Args: size: edge of a cube in the unit of the points, > 0."""
        if not size > 0:
            raise ValueError(f"expected a voxel size > 0, got {size}")
        self.size = size
        self._seen = np.zeros(0, np.int64)

    def __call__(self, cloud: PointCloud) -> PointCloud:
        with np.errstate(over="ignore"):
            place = np.floor(cloud.positions.astype(np.float64) / self.size)
        if place.size and not np.abs(place).max() < 2**20:
            raise ValueError(f"voxel size {self.size} is too small for points this far out; use a larger one")
        cell = place.astype(np.int64)
        key = ((cell[:, 0] + 2**20) << 42) | ((cell[:, 1] + 2**20) << 21) | (cell[:, 2] + 2**20)
        key, first = np.unique(key, return_index=True)
        new = ~np.isin(key, self._seen, assume_unique=True)
        self._seen = np.union1d(self._seen, key[new])
        return cloud.select(np.sort(first[new]))
