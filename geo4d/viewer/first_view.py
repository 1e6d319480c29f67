"""Where a visitor of the viewer stands at first."""

import numpy as np

MARGIN = 1.1
"""How much wider than the picture the first view is, where the window is too narrow for more."""

NEAREST = 0.5
"""Typical depths that a visitor stands behind the camera, at least: the camera itself is then in view."""


def steps_back(intrinsics: np.ndarray, size: tuple[int, int], *, fov: float, aspect: float) -> float:
    """Typical depths from the camera back to a visitor who has the whole picture in view, on a phone as on a desk.

    At depth d the picture is d p wide, and a visitor b behind the camera has (d + b) v in view, with p and v twice the
    tangents of the half angles: b >= d (p / v - 1), across and upright. d is twice the typical depth; beyond it there
    is little, and what lies there is nearly as small as from the camera itself.

    Args:
        intrinsics: [3, 3] of the camera, in pixels of its picture.
        size: of its picture.
        fov: of the visitor, upright, in radians.
        aspect: width over height of the visitor's window.
    """
    height, width = size
    picture = np.array([width / intrinsics[0, 0], height / intrinsics[1, 1]])
    upright = 2 * np.tan(fov / 2)
    return max(NEAREST, 2 * float((MARGIN * picture / (upright * np.array([aspect, 1.0]))).max() - 1))
