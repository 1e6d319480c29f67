"""UrbanSyn: single pictures of rendered streets; each is a sequence of one frame.

Get it from https://www.urbansyn.org (CC BY-SA 4.0).

- Depth: EXR of one channel; metres = value * 1e5.
- Sky: class 10 of the labels in ``ss`` (+inf). What is 0, negative or not finite elsewhere is unknown (NaN).
- Cameras: ``camera_metadata.json`` (``parameters[0].Camera``: focal length and sensor in millimetres), principal point in
  the middle. Poses are not published.

Source: CUT3R (preprocess_urbansyn.py).
"""

from pathlib import Path
from typing import Any

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    exr_map,
    known_depth,
    list_files,
    load_json,
    map_size,
    rgb_frames,
)
from geo4d.errors import InputError
from geo4d.formats.files import existing_file
from geo4d.types import LazyFrames

UNIT = 1e5
SKY_CLASS = 10
CAMERA_FILE = "camera_metadata.json"


def _find(root: Path) -> dict[str, Path]:
    if not (root / "depth").is_dir() or not ((root / CAMERA_FILE).is_file() or (root / "ss").is_dir()):
        return {}
    return {path.stem: path for path in list_files(root / "rgb", (".png",))}


def _labels(path: Path) -> np.ndarray:
    import cv2

    data = np.fromfile(existing_file(path, "a picture of labels"), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None or image.dtype != np.uint8:
        raise InputError(f"expected labels of 8 bits in {path}, but it cannot be decoded as such")
    return image if image.ndim == 2 else image[..., 0]


def _focal(path: Path, size: tuple[int, int]) -> tuple[float, float]:
    facts: Any = load_json(path)
    try:
        camera = facts["parameters"][0]["Camera"]
        focal, width, height = (
            float(camera[f"{name}_mm"]) for name in ("focalLength", "sensorWidth", "sensorHeight")
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"expected parameters[0].Camera with focalLength_mm, sensorWidth_mm, sensorHeight_mm in {path}: {error!r}"
        ) from error
    return focal / width * size[1], focal / height * size[0]


def _load(path: Path, name: str) -> Sequence:
    root = path.parent.parent
    depth_file = root / "depth" / f"{path.stem.replace('rgb', 'depth')}.exr"
    label_file = root / "ss" / f"{path.stem.replace('rgb', 'ss')}.png"
    absent = [file for file in (depth_file, label_file, root / CAMERA_FILE) if not file.is_file()]
    if absent:
        raise missing(READER, root, f"{absent[0].relative_to(root)} is not there")
    rgb = rgb_frames([path])
    size = map_size(rgb)

    def depth(t: int) -> np.ndarray:
        values, sky = exr_map(depth_file, "R", "Y", "Z") * UNIT, _labels(label_file) == SKY_CLASS
        if values.shape != size or sky.shape != size:
            raise InputError(
                f"expected depth and labels of {size} as in {path}, got {values.shape} and {sky.shape}"
            )
        return np.where(sky, np.inf, known_depth(values))

    fx, fy = _focal(root / CAMERA_FILE, size)
    return Sequence(
        name=name,
        dataset="urbansyn",
        times_s=np.zeros(1),
        size=size,
        rgb=rgb,
        depth=LazyFrames((1, *size), np.dtype(np.float32), depth),
        intrinsics=constant_intrinsics(1, fx, fy, size[1] / 2, size[0] / 2, integer_centres=False),
        depth_source="rendered",
        files=(path, depth_file, label_file, root / CAMERA_FILE),
    )


READER = Reader(
    name="urbansyn",
    title="UrbanSyn",
    url="https://www.urbansyn.org (CC BY-SA 4.0)",
    layout=f"rgb/rgb_NNNN.png, depth/depth_NNNN.exr, ss/ss_NNNN.png, {CAMERA_FILE}.",
    find=_find,
    load=_load,
    still=True,
)
