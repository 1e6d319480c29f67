"""What the kernels see of a scene: primitives of one frame, light and sky, one camera.

Every primitive is a unit shape (``synthetic/shapes.py``) under one affine map per frame, so that movement and deformation
are exact.
"""

from typing import NamedTuple

import numpy as np

NEAR = 0.03  # metres in front of the camera where surfaces start
FAR = 1e8
TERRAIN_FAR = 400.0


class Primitives(NamedTuple):
    """P primitives of one frame; rows are ordered by object."""

    shape: np.ndarray  # [P] int64
    l2w: np.ndarray  # [P, 4, 4] unit shape -> world
    w2l: np.ndarray  # [P, 4, 4] its inverse
    size: np.ndarray  # [P, 3] half extents in metres, for texture coordinates
    offset: np.ndarray  # [P, 2] texture offset
    tint: np.ndarray  # [P, 3]
    texture: np.ndarray  # [P] int64
    texture_scale: np.ndarray  # [P] texture repeats per metre
    cutout: np.ndarray  # [P] noise level below which the surface is a hole; negative: solid
    specular: np.ndarray  # [P]
    emission: np.ndarray  # [P]
    shadow: np.ndarray  # [P] bool: casts a shadow
    object_first: np.ndarray  # [O + 1] int64: first primitive of every object
    terrain: np.ndarray  # [N, 4] waves of the terrain: frequency x, frequency z, height, phase


class Environment(NamedTuple):
    """Light and sky of one scene."""

    light: np.ndarray  # [3] position of a lamp or direction towards the sun (unit)
    is_lamp: bool
    ambient: float
    fog: float  # 1/m
    horizon: np.ndarray  # [3]
    zenith: np.ndarray  # [3]
    cloud: np.ndarray  # [3]
    cloud_texture: int
    cloud_level: float
    cloud_contrast: float


class View(NamedTuple):
    """One pinhole camera with square pixels: ``c2w`` in OpenCV axes, metres; the rest in pixels, centres at +0.5."""

    c2w: np.ndarray  # [4, 4]
    focal: float
    cx: float
    cy: float
