"""The PLY format (Greg Turk, version 1.0) as plain readers such as Open3D's take it: scalar vertex properties by name."""

from pathlib import Path

import numpy as np

_KINDS = {
    "char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4", "float": "<f4",
    "double": "<f8",
}  # fmt: skip


def header(path: Path) -> list[str]:
    """Lines up to ``end_header``, which must be ASCII."""
    data = path.read_bytes()
    end = data.index(b"end_header\n")
    return data[:end].decode("ascii").splitlines()


def comments(path: Path) -> list[str]:
    return [line.removeprefix("comment ") for line in header(path) if line.startswith("comment ")]


def load(path: Path) -> dict[str, np.ndarray]:
    """Vertex properties by name; the file must hold exactly the vertices that it announces."""
    lines = header(path)
    assert lines[0] == "ply"
    assert "format binary_little_endian 1.0" in lines
    elements = [line.split() for line in lines if line.startswith("element ")]
    assert [words[1] for words in elements] == ["vertex"]
    kinds = [(words[2], _KINDS[words[1]]) for line in lines if (words := line.split())[:1] == ["property"]]
    data = path.read_bytes()
    body = data[data.index(b"end_header\n") + len(b"end_header\n") :]
    vertices = np.frombuffer(body, np.dtype(kinds))
    assert len(vertices) == int(elements[0][2])
    return {name: vertices[name] for name, _ in kinds}
