"""Nuke scripts and ``.chan`` files by Foundry's rules.

Camera node, reference guide: ``rot_order`` ZXY turns about z first, then x, then y; focal and apertures in millimetres;
``win_translate`` shifts the window, which spans -1 to 1 over the horizontal aperture, after the projection. Pixels as
``nukescripts.snap3d`` scales them: by half of the width, times the pixel aspect for y, from the lower left corner.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Node:
    kind: str
    knobs: dict[str, str]

    def at(self, name: str, frame: int) -> list[float]:
        """Values of a knob at a frame: constants, ``{a b c}``, or curves ``{curve x1 v x2 v}``."""
        text = self.knobs[name].strip()
        if text.startswith("{") and not re.fullmatch(r"\{curve[^{}]*\}", text):
            text = text[1:-1].strip()
        if "curve" not in text:
            return [float(word) for word in text.strip("{}").split()]
        return [_value(piece, frame) for piece in re.findall(r"\{[^{}]*\}|[^\s{}]+", text)]


def _value(piece: str, frame: int) -> float:
    if not piece.startswith("{"):
        return float(piece)
    words = piece.strip("{}").split()
    assert words.pop(0) == "curve"
    keys: dict[int, float] = {}
    position = 0
    for word in words:
        if word.startswith("x"):
            position = int(word[1:])
        else:
            keys[position] = float(word)
            position += 1
    return keys[frame]


def load_script(path: Path) -> list[Node]:
    """Nodes of a script; a Tcl word is bare, in quotes with backslashes, or in braces."""
    text, nodes, position = path.read_text(encoding="utf-8"), [], 0
    header = re.match(r"(#![^\n]*\n)?version [^\n]*\n", text)
    assert header
    position = header.end()
    while match := re.compile(r"\s*(\w+) \{\n").match(text, position):
        kind, knobs, position = match[1], {}, match.end()
        while not text.startswith("}", position):
            name, position = (
                re.compile(r"\s*(\w+) ").match(text, position)[1],
                text.index(" ", position + 1) + 1,
            )  # type: ignore[index]
            value, position = _word(text, position)
            knobs[name] = value
            assert text[position] == "\n"
            position += 1
        position += 2
        nodes.append(Node(kind, knobs))
    assert not text[position:].strip()
    return nodes


def _word(text: str, position: int) -> tuple[str, int]:
    if text[position] == '"':
        end, out = position + 1, ""
        while text[end] != '"':
            assert text[end] not in "[$", "Tcl would put something else in here"
            if text[end] == "\\":
                end += 1
            out += text[end]
            end += 1
        return out, end + 1
    if text[position] == "{":
        depth, end = 0, position
        while True:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if depth == 0:
                return text[position:end], end
    end = text.index("\n", position)
    return text[position:end], end


def rotation_zxy(degrees: np.ndarray) -> np.ndarray:
    """First about z, then x, then y, for column vectors."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def project(nodes: list[Node], frame: int, points: np.ndarray) -> np.ndarray:
    """Pixels (x, y) from the upper left of world points (+y up) in the script's format."""
    (root,) = [node for node in nodes if node.kind == "Root"]
    (camera,) = [node for node in nodes if node.kind == "Camera2"]
    assert camera.knobs["rot_order"] == "ZXY"
    words = root.knobs["format"].split()
    width, height, pixel_aspect = float(words[0]), float(words[1]), float(words[6])
    assert [float(word) for word in words[2:6]] == [0, 0, width, height]
    turn = rotation_zxy(np.array(camera.at("rotate", frame)))
    seen = (points - camera.at("translate", frame)) @ turn
    lens = 2 * camera.at("focal", frame)[0] / camera.at("haperture", frame)[0]
    u, v = camera.at("win_translate", frame)
    x = width / 2 * (lens * seen[:, 0] / -seen[:, 2] - u + 1)
    y = width / 2 * pixel_aspect * (lens * seen[:, 1] / -seen[:, 2] - v) + height / 2
    return np.stack([x, height - y], axis=1)


def project_chan(
    path: Path, frame: int, points: np.ndarray, size: tuple[int, int], pixel_aspect: float
) -> np.ndarray:
    """Pixels from the upper left by a row ``frame tx ty tz rx ry rz fov`` of a ``.chan``, the lens in the middle."""
    rows = {int(row[0]): row[1:] for row in np.loadtxt(path, ndmin=2)}
    row, (height, width) = rows[frame], size
    seen = (points - row[:3]) @ rotation_zxy(row[3:6])
    pixels_high = height / 2 / np.tan(np.radians(row[6]) / 2)  # one unit at distance one, in pixels
    x = width / 2 + pixels_high / pixel_aspect * seen[:, 0] / -seen[:, 2]
    y = height / 2 - pixels_high * seen[:, 1] / -seen[:, 2]
    return np.stack([x, y], axis=1)
