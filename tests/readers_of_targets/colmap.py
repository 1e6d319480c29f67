"""COLMAP models through pycolmap, and masks by COLMAP 4.2's rule (controllers/image_reader.h, ``mask_path``)."""

from pathlib import Path

import cv2
import numpy as np
import pycolmap


def load(folder: Path) -> pycolmap.Reconstruction:
    """The model of ``sparse/0``; every image it names must be in ``images`` and have the size of its camera."""
    model = pycolmap.Reconstruction(str(folder / "sparse/0"))
    for image in model.images.values():
        picture = cv2.imread(str(folder / "images" / image.name))
        camera = model.cameras[image.camera_id]
        assert picture.shape[:2] == (camera.height, camera.width)
    return model


def world_from_camera(image: pycolmap.Image) -> np.ndarray:
    pose = image.cam_from_world
    matrix = np.eye(4)
    matrix[:3] = (pose() if callable(pose) else pose).matrix()
    return np.linalg.inv(matrix)


def mask(folder: Path, name: str) -> np.ndarray:
    """bool [H, W]: True where features are looked for. The mask of NAME is NAME with .png added, black = ignored."""
    path = folder / "masks" / (name + ".png")
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert grey is not None, f"no mask at {path}"
    assert grey.shape == cv2.imread(str(folder / "images" / name)).shape[:2]
    return grey != 0
