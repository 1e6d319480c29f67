"""Matrices that place and move things. World frame: metres, y down, x right, z forward."""

import numpy as np


def rotation_x(angle: np.ndarray | float) -> np.ndarray:
    """``[..., 4, 4]`` turn about x; positive lifts +z up (towards -y)."""
    return _rotation(angle, 1, 2)


def rotation_y(angle: np.ndarray | float) -> np.ndarray:
    """``[..., 4, 4]`` turn about y; positive takes +z to +x."""
    return _rotation(angle, 2, 0)


def rotation_z(angle: np.ndarray | float) -> np.ndarray:
    """``[..., 4, 4]`` turn about z; positive takes +x to +y."""
    return _rotation(angle, 0, 1)


def _rotation(angle: np.ndarray | float, first: int, second: int) -> np.ndarray:
    angle = np.asarray(angle, np.float64)
    matrix = np.zeros((*angle.shape, 4, 4))
    matrix[...] = np.eye(4)
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -np.sin(angle)
    return matrix


def translation(offset: np.ndarray | list[float] | tuple[float, ...]) -> np.ndarray:
    """``[..., 4, 4]`` shift by ``offset [..., 3]``."""
    offset = np.asarray(offset, np.float64)
    matrix = np.zeros((*offset.shape[:-1], 4, 4))
    matrix[...] = np.eye(4)
    matrix[..., :3, 3] = offset
    return matrix


def scaling(factors: np.ndarray) -> np.ndarray:
    """``[..., 4, 4]`` stretch along the axes by ``factors [..., 3]``."""
    factors = np.asarray(factors, np.float64)
    matrix = np.zeros((*factors.shape[:-1], 4, 4))
    matrix[...] = np.eye(4)
    for axis in range(3):
        matrix[..., axis, axis] = factors[..., axis]
    return matrix
