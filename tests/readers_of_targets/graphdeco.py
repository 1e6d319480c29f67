"""The rule of graphdeco's gaussian-splatting for COLMAP folders (scene/dataset_readers.py, scene/cameras.py; 2024).

Cameras are PINHOLE or SIMPLE_PINHOLE; of their parameters only focal length and size count, the principal point is taken
to be the centre. Points and colours, in the order of the file, start the Gaussians. Of a picture with four channels the
last one multiplies the rendering; what the picture shows there stays in the loss. Masks in files are not known.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap

from tests.readers_of_targets.colmap import world_from_camera


@dataclass
class Camera:
    """One picture as the training sees it.

    Attributes:
        name: of the picture.
        w2c: [4, 4], OpenCV axes.
        fov: (x, y) radians.
        picture: [H, W, 3] in [0, 1].
        alpha: [H, W] in [0, 1]; ones without an alpha channel.
    """

    name: str
    w2c: np.ndarray
    fov: tuple[float, float]
    picture: np.ndarray
    alpha: np.ndarray


def load(folder: Path) -> tuple[list[Camera], np.ndarray, np.ndarray]:
    """Cameras in the order of their names, points [N, 3] and their colours [N, 3] in [0, 1]."""
    model = pycolmap.Reconstruction(str(folder / "sparse/0"))
    cameras = []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        lens = model.cameras[image.camera_id]
        assert lens.model.name in ("PINHOLE", "SIMPLE_PINHOLE")
        focal = (lens.params[0], lens.params[1 if lens.model.name == "PINHOLE" else 0])
        assert "/" not in image.name  # only the last part of a name is looked for
        pixels = cv2.imread(str(folder / "images" / image.name), cv2.IMREAD_UNCHANGED) / 255
        assert pixels.shape[:2] == (lens.height, lens.width)
        alpha = pixels[..., 3] if pixels.shape[-1] == 4 else np.ones(pixels.shape[:2])
        fov = (2 * np.arctan(lens.width / (2 * focal[0])), 2 * np.arctan(lens.height / (2 * focal[1])))
        cameras.append(
            Camera(image.name, np.linalg.inv(world_from_camera(image)), fov, pixels[..., 2::-1], alpha)
        )
    points = [model.points3D[number] for number in sorted(model.points3D)]
    xyz = np.array([point.xyz for point in points])
    return cameras, xyz, np.array([point.color for point in points]) / 255


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] (centres at +0.5) by its projection matrix, which knows angles of view alone, and z-depth [N]."""
    height, width = camera.alpha.shape
    seen = points @ camera.w2c[:3, :3].T + camera.w2c[:3, 3]
    ndc = seen[:, :2] / seen[:, 2:] / np.tan(np.array(camera.fov) / 2)
    return (ndc + 1) / 2 * [width, height], seen[:, 2]


def loss(camera: Camera, rendering: np.ndarray) -> np.ndarray:
    """[H, W] absolute difference of a rendering [H, W, 3] and the picture, as the loss has it."""
    return np.abs(rendering * camera.alpha[..., None] - camera.picture).mean(axis=-1)
