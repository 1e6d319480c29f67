"""glTF 2.0 (specification 2.0.1: 3.6 accessors, 3.7.2.1 meshes, 3.10 cameras, 3.11 animations, 4.4 GLB)."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_COMPONENTS = {5121: np.dtype("u1"), 5123: np.dtype("<u2"), 5126: np.dtype("<f4")}
_WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


@dataclass
class Node:
    """One node of the scene: points [N, 3] in glTF axes, linear colours [N, 3] in [0, 1] or None."""

    name: str
    extras: dict
    points: np.ndarray
    linear: np.ndarray | None


def load(path: Path) -> tuple[dict, list[Node]]:
    """The document and the nodes of its scene that are no cameras, with what the specification asks of them checked."""
    document, binary = _open(path)
    nodes = []
    for number in document["scenes"][document["scene"]]["nodes"]:
        node = document["nodes"][number]
        if "camera" in node:
            continue
        points, linear = np.zeros((0, 3)), None
        if "mesh" in node:
            (primitive,) = document["meshes"][node["mesh"]]["primitives"]
            assert primitive["mode"] == 0  # points
            points = _read(document, binary, primitive["attributes"]["POSITION"], bounds=True)
            if "COLOR_0" in primitive["attributes"]:
                linear = _read(document, binary, primitive["attributes"]["COLOR_0"])[:, :3]
                assert len(linear) == len(points)
                assert linear.min() >= 0
                assert linear.max() <= 1
        nodes.append(Node(node.get("name", ""), node.get("extras", {}), points, linear))
    return document, nodes


def _open(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    chunks, position = [], 12
    while position < len(data):
        size, kind = struct.unpack_from("<I4s", data, position)
        assert size % 4 == 0
        chunks.append((kind, data[position + 8 : position + 8 + size]))
        position += 8 + size
    assert position == len(data)
    assert [kind for kind, _ in chunks] in ([b"JSON"], [b"JSON", b"BIN\0"])
    document = json.loads(chunks[0][1])
    binary = chunks[1][1] if len(chunks) > 1 else b""
    assert document["asset"]["version"] == "2.0"
    for buffer in document.get("buffers", []):
        assert buffer["byteLength"] <= len(binary) <= buffer["byteLength"] + 3
    for name in ("nodes", "meshes", "accessors", "bufferViews", "materials"):
        assert document.get(name, [0]), f"{name} may be absent but not empty"
    return document, binary


def animated(path: Path, name: str, time_s: float) -> dict[str, np.ndarray]:
    """``translation``, ``rotation`` (xyzw) and ``scale`` of a node at a time, its animations evaluated."""
    document, binary = _open(path)
    (number,) = [i for i, node in enumerate(document["nodes"]) if node["name"] == name]
    node = document["nodes"][number]
    found = {
        "translation": np.array(node.get("translation", [0, 0, 0]), float),
        "rotation": np.array(node.get("rotation", [0, 0, 0, 1]), float),
        "scale": np.array(node.get("scale", [1, 1, 1]), float),
    }
    for animation in document.get("animations", []):
        for channel in animation["channels"]:
            if channel["target"]["node"] != number:
                continue
            sampler = animation["samplers"][channel["sampler"]]
            accessor = document["accessors"][sampler["input"]]
            assert "min" in accessor, "the times of an animation state their bounds"
            times = _read(document, binary, sampler["input"], bounds=True)[:, 0]
            values = _read(document, binary, sampler["output"])
            assert times[0] >= 0
            assert (np.diff(times) > 0).all()
            assert len(values) == len(times)
            if channel["target"]["path"] == "rotation":
                np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
            found[channel["target"]["path"]] = _at(times, values, time_s, sampler["interpolation"])
    return found


def _at(times: np.ndarray, values: np.ndarray, time_s: float, interpolation: str) -> np.ndarray:
    after = int(np.searchsorted(times, time_s + 1e-6, side="right"))
    if after == 0:
        return values[0]
    if interpolation == "STEP" or after == len(times):
        return values[after - 1]
    assert interpolation == "LINEAR"
    share = (time_s - times[after - 1]) / (times[after] - times[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def project(path: Path, time_s: float, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (x, y) from the upper left of world points [N, 3] in glTF axes, as the file's camera sees them at a time."""
    document, _ = _open(path)
    (camera,) = document["cameras"]
    assert camera["type"] == "perspective"
    lens, (height, width) = camera["perspective"], size
    pose = animated(path, "camera", time_s)
    x, y, z, w = pose["rotation"] / np.linalg.norm(pose["rotation"])
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    seen = (points - pose["translation"]) @ turn  # looks along -z
    assert (-seen[:, 2] > lens["znear"]).all()
    assert (-seen[:, 2] < lens["zfar"]).all()
    high = np.tan(lens["yfov"] / 2)
    right, up = seen[:, 0] / -seen[:, 2] / (lens["aspectRatio"] * high), seen[:, 1] / -seen[:, 2] / high
    return np.stack([(right + 1) / 2 * width, (1 - up) / 2 * height], axis=1)


def _read(document: dict, binary: bytes, number: int, *, bounds: bool = False) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    kind, width, count = _COMPONENTS[accessor["componentType"]], _WIDTH[accessor["type"]], accessor["count"]
    assert count >= 1
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    element = kind.itemsize * width
    stride = view.get("byteStride", element)
    assert start % kind.itemsize == 0
    assert stride % 4 == 0
    assert 4 <= stride <= 252
    assert accessor.get("byteOffset", 0) + stride * (count - 1) + element <= view["byteLength"]
    values = np.ndarray((count, width), kind, binary, start, (stride, kind.itemsize))
    if bounds:
        np.testing.assert_array_equal(np.float32(accessor["min"]), values.min(axis=0))
        np.testing.assert_array_equal(np.float32(accessor["max"]), values.max(axis=0))
    if kind.kind == "u":
        assert accessor["normalized"]
        return values / np.iinfo(kind).max
    return values.astype(np.float64)


def linear_to_srgb_bytes(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, as a viewer shows linear colours."""
    low = linear <= 0.0031308
    return np.round(
        255 * np.where(low, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    )


def in_blender(points: np.ndarray) -> np.ndarray:
    """Blender's importer (io_scene_gltf2 4.5) turns glTF's y up into its z up: (x, y, z) becomes (x, -z, y)."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
