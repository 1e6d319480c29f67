"""Scenes of a few unit shapes, whose pictures can be worked out by hand, as the kernels take them."""

import numpy as np

from geo4d.synthetic.kernels.inputs import Environment, Primitives, View
from geo4d.synthetic.textures import LEVEL_OFFSETS

VIEW = View(np.eye(4), focal=20.0, cx=16.0, cy=12.0)
"""A camera at the origin that looks along z; pictures of (24, 32)."""
WHITE = np.full((1, int(LEVEL_OFFSETS[-1]), 4), 255, np.uint8)
"""One texture that is white everywhere, at every level."""


def at(x: float, y: float, z: float, half: float | tuple[float, float, float] = 1.0) -> np.ndarray:
    """[4, 4] of a unit shape at a place, with its half extents, metres."""
    l2w = np.diag([*np.broadcast_to(half, 3), 1.0])
    l2w[:3, 3] = x, y, z
    return l2w


def primitives(*parts: tuple[int, np.ndarray], **changed: np.ndarray) -> Primitives:
    """Solid white shapes (number of the shape, its map to the world) that throw shadows, each an object of its own."""
    count = len(parts)
    l2w = np.stack([m for _, m in parts])
    values = {
        "shape": np.array([shape for shape, _ in parts], np.int64),
        "l2w": l2w,
        "w2l": np.linalg.inv(l2w),
        "size": np.ones((count, 3)),
        "offset": np.zeros((count, 2)),
        "tint": np.ones((count, 3)),
        "texture": np.zeros(count, np.int64),
        "texture_scale": np.full(count, 3.0),
        "cutout": np.full(count, -1.0),
        "specular": np.zeros(count),
        "emission": np.zeros(count),
        "shadow": np.ones(count, bool),
        "object_first": np.arange(count + 1),
        "terrain": np.zeros((1, 4)),
    }
    return Primitives(**values | changed)


def environment(**changed) -> Environment:
    """A sun behind the camera, no fog, a plain sky."""
    values = {
        "light": np.array([0.0, 0.0, -1.0]),
        "is_lamp": False,
        "ambient": 0.25,
        "fog": 0.0,
        "horizon": np.array([0.2, 0.4, 0.6]),
        "zenith": np.array([0.1, 0.3, 0.9]),
        "cloud": np.ones(3),
        "cloud_texture": 0,
        "cloud_level": 2.0,
        "cloud_contrast": 1.0,
    }
    return Environment(**values | changed)


def rays(size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """[H, W, 3] directions of VIEW's pixel centres, z = 1."""
    x, y = np.meshgrid(
        (np.arange(size[1]) + 0.5 - VIEW.cx) / VIEW.focal, (np.arange(size[0]) + 0.5 - VIEW.cy) / VIEW.focal
    )
    return np.stack([x, y, np.ones_like(x)], -1)
