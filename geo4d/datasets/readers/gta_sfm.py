"""GTA-SfM: views along paths through a video game, one HDF5 file for each.

Get it from https://github.com/HKUST-Aerial-Robotics/Flow-Motion-Depth (no licence is stated; the game's own terms apply).

- Depth: ``depth_i``, z-depth. The unit is not stated: scale is unknown. Values below 1e-5 and beyond 256 are unknown
  (NaN), as MotionCrafter treats them; the sky is among them, nothing marks it.
- Cameras: ``K_i`` [3, 3], whose principal point is half the size (pixel centres at +0.5); ``pose_i`` [4, 4], camera to
  world, OpenCV axes.
- Times: nominal; neighbouring views are far apart.

Source: keys, robustrobotics/multi_view_stereonet (scripts/gta_sfm/extract.py) and MotionCrafter (gen_gta_sfm_video.py);
direction of the poses and pixel centres, multi_view_stereonet (datasets/gta_sfm_dataset.py).
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import known_depth, load_hdf5, nominal_times, open_hdf5
from geo4d.errors import InputError
from geo4d.types import LazyFrames

FAR = 256.0
_SUFFIXES = ("h5", "hdf5")
_KINDS = ("image", "depth", "K", "pose")


def _find(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split in ("train", "test", "train_hdf5", "test_hdf5"):
        for suffix in _SUFFIXES:
            for path in sorted((root / split).glob(f"*.{suffix}")):
                found[f"{split.removesuffix('_hdf5')}/{path.stem}"] = path
    return found


def _decode(path: Path, key: str) -> np.ndarray:
    import cv2

    image = cv2.imdecode(load_hdf5(path, key).astype(np.uint8).reshape(-1), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"expected an encoded picture in {key} of {path}, but it cannot be decoded")
    return np.ascontiguousarray(image[..., ::-1]).astype(np.float32) / 255


def _load(path: Path, name: str) -> Sequence:
    with open_hdf5(path) as file:
        keys = set(file)
    count = len([key for key in keys if key.startswith("image_")])
    wanted = [f"{kind}_{number}" for kind in _KINDS for number in range(count)]
    absent = [key for key in wanted if key not in keys]
    if absent or not count:
        raise missing(READER, path, f"{count} pictures, and no array {absent[0] if absent else 'image_0'}")
    first = load_hdf5(path, "depth_0")
    size = (int(first.shape[0]), int(first.shape[1]))
    picture = _decode(path, "image_0").shape
    times_s, note = nominal_times(count)
    return Sequence(
        name=name,
        dataset="gta-sfm",
        times_s=times_s,
        size=size,
        rgb=LazyFrames((count, *picture), np.dtype(np.float32), lambda t: _decode(path, f"image_{t}")),
        depth=LazyFrames(
            (count, *size),
            np.dtype(np.float32),
            lambda t: known_depth(load_hdf5(path, f"depth_{t}"), known_to=FAR),
        ),
        intrinsics=np.stack([load_hdf5(path, f"K_{t}") for t in range(count)]).astype(np.float64),
        c2w=np.stack([load_hdf5(path, f"pose_{t}") for t in range(count)]).astype(np.float64),
        scale_kind="scale",
        depth_source="rendered",
        pose_source="rendered",
        files=(path,),
        notes=(note,),
    )


READER = Reader(
    name="gta-sfm",
    title="GTA-SfM",
    url="https://github.com/HKUST-Aerial-Robotics/Flow-Motion-Depth (no licence stated)",
    layout="train|test/<scene>.h5 (or train_hdf5|test_hdf5/<scene>.hdf5) with image_i, depth_i, K_i, pose_i.",
    find=_find,
    load=_load,
)
