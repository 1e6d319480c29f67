"""GLB (binary glTF 2.0): point clouds, streamed, with a camera and the times at which they are seen."""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from geo4d import __version__
from geo4d.errors import InputError
from geo4d.formats.cameras import poses_to_quaternions
from geo4d.formats.colours import linear_to_srgb, srgb_to_linear
from geo4d.formats.files import existing_file, new_file
from geo4d.formats.points import PointCloud

_GLTF_AXES = np.array([1, -1, -1], np.float32)
_FLOAT, _VERTICES = 5126, 34962


@dataclass(frozen=True)
class GlbCamera:
    """A perspective camera that moves; glTF knows neither a lens that changes nor a principal point off the centre.

    Attributes:
        c2w: camera to world, OpenCV axes on both sides.
        times_s: rising, from 0; seconds.
        fov_y: full vertical field of view, radians.
        aspect: width by height of the view, each in the same unit.
        near, far: clipping distances, in the unit of the world.
        extras: JSON values for the camera's node.
    """

    c2w: Float[np.ndarray, "T 4 4"]
    times_s: Float[np.ndarray, " T"]
    fov_y: float
    aspect: float
    near: float
    far: float
    extras: Mapping[str, Any] = field(default_factory=dict)


def save_glb(
    path: str | Path,
    clouds: PointCloud | Iterable[PointCloud],
    notes: Mapping[str, Any] | None = None,
    *,
    nodes: Sequence[tuple[str, Mapping[str, Any]]] | None = None,
    camera: GlbCamera | None = None,
    shown_s: Sequence[float] | None = None,
) -> int:
    """Write clouds one after the other as one GLB; only one is held at a time.

    glTF axes are +y up, +z towards the viewer: points are turned by 180 degrees about x. Colours go into ``COLOR_0`` as
    linear light, as glTF 2.0 defines it (section 3.7.2.1), in floats: eight linear bits would band in the dark.

    Args:
        clouds: one or many; positions in OpenCV axes, colours sRGB; all with colours or all without.
        notes: JSON values for the scene's ``extras`` (convention, units, frames).
        nodes: name and ``extras`` of one node for each cloud; None merges all into one node ``points``.
        camera: a node ``camera`` of its own, moving when it has more than one pose.
        shown_s: when every node appears, rising, from 0, in seconds; it goes when the next one comes (its scale steps
            to 0, as glTF 2.0 has no other way to hide a node). None shows all of them always.
    Returns:
        number of points written. A cloud without points gets a node without a mesh, as glTF has no empty meshes.
    Raises:
        ValueError: more points than a GLB can hold (4 GiB), clouds of different kinds, or names or times that do not fit.
    """
    if shown_s is not None and (nodes is None or len(nodes) != len(shown_s)):
        raise ValueError(f"expected a time for each node, got {len(shown_s)} for {len(nodes or [])} nodes")
    with new_file(path) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as data:
        pieces = [_Piece(0)] if nodes is None else []
        coloured: bool | None = None
        for cloud in [clouds] if isinstance(clouds, PointCloud) else clouds:
            if coloured is not None and coloured != (cloud.colours is not None):
                raise ValueError("expected clouds that all have colours or all have none, got both")
            coloured = cloud.colours is not None
            if nodes is not None:
                pieces.append(_Piece(data.tell()))
            pieces[-1].add(data, cloud)
        if nodes is not None and len(nodes) != len(pieces):
            raise ValueError(f"expected a node for each of {len(pieces)} clouds, got {len(nodes)}")
        document = _Document(dict(notes or {}), data)
        for (name, extras), piece in zip(nodes or [("points", {})], pieces, strict=False):
            document.add_points(name, extras, piece, bool(coloured))
        if shown_s is not None:
            document.show_one_after_the_other(shown_s)
        if camera is not None:
            document.add_camera(camera)
        _assemble(temporary, document.finished(), data)
    return sum(piece.count for piece in pieces)


class _Piece:
    """Records of one node in the binary part: position, and colour if there is one, 3 floats each."""

    def __init__(self, start: int) -> None:
        self.start, self.count = start, 0
        self.low, self.high = np.full(3, np.inf, np.float32), np.full(3, -np.inf, np.float32)

    def add(self, file: Any, cloud: PointCloud) -> None:
        if not cloud.num_points:
            return
        columns = [np.asarray(cloud.positions, np.float32) * _GLTF_AXES]
        if cloud.colours is not None:
            columns.append(srgb_to_linear(cloud.colours.astype(np.float32) / np.float32(255)))
        file.write(np.ascontiguousarray(np.concatenate(columns, axis=1), "<f4").tobytes())
        self.count += cloud.num_points
        self.low = np.minimum(self.low, columns[0].min(axis=0))
        self.high = np.maximum(self.high, columns[0].max(axis=0))


class _Document:
    """The JSON part as it grows; numbers of animations go behind the points in the binary part."""

    def __init__(self, notes: Mapping[str, Any], data: Any) -> None:
        self._notes, self._data = notes, data
        self._nodes: list[dict[str, Any]] = []
        self._meshes: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._views: list[dict[str, Any]] = []
        self._cameras: list[dict[str, Any]] = []
        self._samplers: list[dict[str, Any]] = []
        self._channels: list[dict[str, Any]] = []

    def add_points(self, name: str, extras: Mapping[str, Any], piece: "_Piece", coloured: bool) -> None:
        node: dict[str, Any] = {"name": name, **({"extras": dict(extras)} if extras else {})}
        self._nodes.append(node)
        if not piece.count:
            return
        node["mesh"] = len(self._meshes)
        stride = 24 if coloured else 12
        view = {
            "buffer": 0,
            "byteOffset": piece.start,
            "byteLength": piece.count * stride,
            "target": _VERTICES,
        }
        self._views.append({**view, "byteStride": stride})
        common = {
            "bufferView": len(self._views) - 1,
            "componentType": _FLOAT,
            "count": piece.count,
            "type": "VEC3",
        }
        attributes = {"POSITION": len(self._accessors)}
        bounds = {"min": piece.low.tolist(), "max": piece.high.tolist()}
        self._accessors.append({**common, "byteOffset": 0, **bounds})
        if coloured:
            attributes["COLOR_0"] = len(self._accessors)
            self._accessors.append({**common, "byteOffset": 12})
        primitive = {"attributes": attributes, "mode": 0, "material": 0}
        self._meshes.append({"name": name, "primitives": [primitive]})

    def show_one_after_the_other(self, shown_s: Sequence[float]) -> None:
        """Every node so far has its own size from its time to that of the next one, and none otherwise."""
        for number, start in enumerate(shown_s):
            keys = [] if number == 0 else [(0.0, 0.0)]
            keys.append((float(start), 1.0))
            if number + 1 < len(shown_s):
                keys.append((float(shown_s[number + 1]), 0.0))
            times, sizes = np.array(keys, np.float32).T
            self._animate(number, "scale", self._times(times), np.repeat(sizes[:, None], 3, axis=1), "STEP")

    def add_camera(self, camera: GlbCamera) -> None:
        turn = np.diag([1.0, -1, -1, 1])  # OpenCV to glTF, for the world and for the axes of the camera
        c2w = turn @ np.asarray(camera.c2w, np.float64) @ turn
        quaternions = poses_to_quaternions(c2w)[:, [1, 2, 3, 0]]
        # Either sign is the same rotation; the one nearer to the frame before interpolates the short way everywhere.
        flips = np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0
        quaternions[1:] *= np.where(np.cumsum(flips) % 2 == 1, -1.0, 1.0)[:, None]
        lens = {
            "yfov": float(camera.fov_y),
            "aspectRatio": float(camera.aspect),
            "znear": float(camera.near),
            "zfar": float(camera.far),
        }
        self._cameras.append({"name": "camera", "type": "perspective", "perspective": lens})
        self._nodes.append(
            {
                "name": "camera",
                "camera": len(self._cameras) - 1,
                "translation": c2w[0, :3, 3].tolist(),
                "rotation": quaternions[0].tolist(),
                **({"extras": dict(camera.extras)} if camera.extras else {}),
            }
        )
        if len(c2w) > 1:
            node, times = len(self._nodes) - 1, self._times(np.asarray(camera.times_s, np.float32))
            self._animate(node, "translation", times, c2w[:, :3, 3], "LINEAR")
            self._animate(node, "rotation", times, quaternions, "LINEAR")

    def _animate(self, node: int, path: str, times: int, values: np.ndarray, interpolation: str) -> None:
        output = self._numbers(values, f"VEC{values.shape[1]}")
        self._channels.append({"sampler": len(self._samplers), "target": {"node": node, "path": path}})
        self._samplers.append({"input": times, "output": output, "interpolation": interpolation})

    def _times(self, times_s: np.ndarray) -> int:
        if times_s[0] < 0 or (np.diff(times_s) <= 0).any():
            raise ValueError(f"expected times that rise from 0 on, got {times_s[:8].tolist()}")
        bounds = {"min": [float(times_s[0])], "max": [float(times_s[-1])]}
        return self._numbers(times_s, "SCALAR", **bounds)

    def _numbers(self, values: np.ndarray, kind: str, **bounds: Any) -> int:
        start = self._data.tell()
        self._data.write(np.ascontiguousarray(values, "<f4").tobytes())
        self._views.append({"buffer": 0, "byteOffset": start, "byteLength": self._data.tell() - start})
        accessor = {
            "bufferView": len(self._views) - 1,
            "componentType": _FLOAT,
            "count": len(values),
            "type": kind,
        }
        self._accessors.append({**accessor, **bounds})
        return len(self._accessors) - 1

    def finished(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"geo4d {__version__}"},
            "scene": 0,
            "scenes": [{"extras": self._notes, "nodes": list(range(len(self._nodes)))}],
            "nodes": self._nodes,
        }
        lists = {
            "meshes": self._meshes,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "cameras": self._cameras,
        }
        document |= {name: values for name, values in lists.items() if values}
        if self._meshes:
            document["materials"] = [{"name": "points", "extensions": {"KHR_materials_unlit": {}}}]
            document["extensionsUsed"] = ["KHR_materials_unlit"]
        if self._channels:
            document["animations"] = [
                {"name": "frames", "channels": self._channels, "samplers": self._samplers}
            ]
        return document


def _assemble(path: Path, document: dict[str, Any], data: Any) -> None:
    length = data.tell()
    if length:
        document["buffers"] = [{"byteLength": length}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + (8 + length if length else 0)
    if total >= 2**32:
        raise ValueError(
            f"expected at most 4 GiB for one GLB, got {total} bytes; use --max-points, --voxel-size or a folder"
        )
    with path.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        if length:
            file.write(struct.pack("<I4s", length, b"BIN\0"))
            data.seek(0)
            shutil.copyfileobj(data, file, 1 << 20)


def load_glb(path: str | Path) -> PointCloud:
    """Read the points of all nodes of a GLB written by ``save_glb`` back into OpenCV axes and sRGB colours.

    Raises:
        InputError: missing, not a GLB, or without points.
    """
    data = existing_file(path, "a GLB file").read_bytes()
    try:
        magic, version, _ = struct.unpack_from("<4sII", data)
        (text_length,) = struct.unpack_from("<I", data, 12)
        document = json.loads(data[20 : 20 + text_length]) if (magic, version) == (b"glTF", 2) else None
    except (struct.error, ValueError) as error:
        raise InputError(f"expected a GLB file, but {path} cannot be read: {error}") from error
    if document is None:
        raise InputError(f"expected a GLB file of version 2, got {magic!r} version {version} in {path}")
    body = 20 + text_length + 8
    primitives = [p for mesh in document.get("meshes", []) for p in mesh["primitives"] if p.get("mode") == 0]
    if not primitives:
        raise InputError(f"expected a point cloud in {path}, found {len(document.get('meshes', []))} meshes")

    def read(number: int) -> np.ndarray:
        accessor = document["accessors"][number]
        view = document["bufferViews"][accessor["bufferView"]]
        if (accessor["componentType"], accessor["type"]) != (5126, "VEC3"):
            raise InputError(f"expected points as geo4d writes them (VEC3 of floats) in {path}")
        stride = view.get("byteStride", 12)
        start = body + view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        if start + stride * (accessor["count"] - 1) + 12 > len(data):
            raise InputError(f"expected {accessor['count']} points in {path}, but the file is truncated")
        strides = (stride, 4)
        return np.ndarray((accessor["count"], 3), "<f4", data, start, strides).astype(np.float32)

    positions = np.concatenate([read(p["attributes"]["POSITION"]) for p in primitives])
    colours = None
    if all("COLOR_0" in p["attributes"] for p in primitives):
        linear = np.concatenate([read(p["attributes"]["COLOR_0"]) for p in primitives])
        colours = np.round(255 * linear_to_srgb(linear)).astype(np.uint8)
    return PointCloud(positions=positions * _GLTF_AXES, colours=colours)
