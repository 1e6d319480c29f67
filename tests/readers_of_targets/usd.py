"""USD through Pixar's own library: cameras as ``Gf.Camera`` has them, points and assets as the stage resolves them."""

from pathlib import Path

import numpy as np


def project(stage, number: int, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (x, y) from the upper left of world points [N, 3] in the picture of frame ``number``."""
    from pxr import Gf, UsdGeom

    height, width = size
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/World/Camera")).GetCamera(number)
    frustum = camera.frustum
    matrix = frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
    seen = np.array([matrix.Transform(Gf.Vec3d(*map(float, point))) for point in points])
    return np.stack([(seen[:, 0] + 1) / 2 * width, (1 - seen[:, 1]) / 2 * height], axis=1)


def world_points(stage, path: str, number: int) -> np.ndarray:
    """Points [N, 3] of a prim in the world at a frame."""
    from pxr import Gf, UsdGeom

    prim = stage.GetPrimAtPath(path)
    to_world = UsdGeom.XformCache(number).GetLocalToWorldTransform(prim)
    points = UsdGeom.PointBased(prim).GetPointsAttr().Get(number)
    return np.array([to_world.Transform(Gf.Vec3d(*map(float, point))) for point in points]).reshape(-1, 3)


def plate_file(stage, number: int) -> Path:
    """The picture of a frame, as the stage resolves it."""
    value = stage.GetPrimAtPath("/World/Plate/Picture").GetAttribute("inputs:file").Get(number)
    return Path(value.resolvedPath)
