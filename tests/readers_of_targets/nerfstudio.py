"""The rule of nerfstudio 1.1.5 (dataparsers/nerfstudio_dataparser.py, datasets/depth_dataset.py, utils/data_utils.py).

Poses are centred and scaled into the unit cube (``orientation_method`` is ``none`` here, ``center_method`` ``poses``).
Depth is the value times 0.001 (``depth_unit_scale_factor``, from the command line only) times the scale of the poses;
points get the transform of the poses, and the scale of the poses times ``applied_scale``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

CAMERA_MODELS = {
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "EQUIRECTANGULAR",
    "OMNIDIRECTIONALSTEREO_L", "OMNIDIRECTIONALSTEREO_R", "VR180_L", "VR180_R", "ORTHOPHOTO", "FISHEYE624",
}  # fmt: skip
DEFAULT_DEPTH_UNIT = 0.001


@dataclass
class Scene:
    """What the dataparser hands on, in nerfstudio's world.

    Attributes:
        meta: the json as it stands.
        saved_c2w: [N, 4, 4] of the file, OpenGL camera axes, in the order of the file names.
        c2w: [N, 4, 4] centred and scaled.
        scale: from the unit of the file to that of ``c2w``.
        intrinsics: [N, 4] fx, fy, cx, cy.
        depth: [N, H, W] in the unit of ``c2w``; 0 = none.
        masks: [N, H, W] bool, False = ignored; None when the file names none.
        points, colours: of ``ply_file_path`` in the world of ``c2w``; None when the file names none.
    """

    meta: dict
    saved_c2w: np.ndarray
    c2w: np.ndarray
    scale: float
    intrinsics: np.ndarray
    depth: np.ndarray
    masks: np.ndarray | None
    points: np.ndarray | None
    colours: np.ndarray | None


def load(folder: Path, *, auto_scale_poses: bool = True) -> Scene:
    from tests.readers_of_targets import ply

    meta = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
    assert meta.get("camera_model", "PINHOLE") in CAMERA_MODELS
    assert not any(meta.get(key) for key in ("k1", "k2", "k3", "k4", "p1", "p2", "distortion_params"))
    frames = sorted(meta["frames"], key=lambda frame: folder / frame["file_path"])
    # What stands at the top holds for all frames, and then those of the frames are not looked at.
    intrinsics = np.array(
        [[float(meta.get(key, frame.get(key))) for key in ("fl_x", "fl_y", "cx", "cy")] for frame in frames]
    )
    saved = np.array([frame["transform_matrix"] for frame in frames], float)
    centred = saved.copy()
    centre = saved[:, :3, 3].mean(axis=0)
    centred[:, :3, 3] -= centre
    scale = 1 / np.abs(centred[:, :3, 3]).max() if auto_scale_poses else 1.0
    centred[:, :3, 3] *= scale
    transform = np.eye(4)
    transform[:3, 3] = -centre
    after = scale * float(meta.get("applied_scale", 1.0))  # of points and depth; the poses do not get it

    for key in ("mask_path", "depth_file_path"):  # for every frame or for none
        assert sum(key in frame for frame in frames) in (0, len(frames))
    depth, masks = [], []
    for frame in frames:
        height, width = int(meta.get("h", frame.get("h"))), int(meta.get("w", frame.get("w")))
        picture = cv2.imread(str(folder / frame["file_path"]), cv2.IMREAD_UNCHANGED)
        assert picture.shape[:2] == (height, width)
        values = cv2.imread(str(folder / frame["depth_file_path"]), cv2.IMREAD_ANYDEPTH)
        values = values.astype(np.float32) * (DEFAULT_DEPTH_UNIT * after)
        depth.append(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST))
        if "mask_path" in frame:
            mask = cv2.imread(str(folder / frame["mask_path"]), cv2.IMREAD_UNCHANGED)
            assert mask.ndim == 2, "the mask image should have 1 channel"
            assert mask.dtype == np.uint8
            masks.append(mask.astype(bool))
    points = colours = None
    if "ply_file_path" in meta:
        fields = ply.load(folder / meta["ply_file_path"])
        xyz = np.stack([fields[name] for name in "xyz"], axis=1).astype(np.float32)
        points = (xyz @ transform[:3, :3].T + transform[:3, 3]) * after
        colours = np.stack([fields[name] for name in ("red", "green", "blue")], axis=1)
    return Scene(
        meta=meta,
        saved_c2w=saved,
        c2w=centred,
        scale=scale,
        intrinsics=intrinsics,
        depth=np.stack(depth),
        masks=np.stack(masks) if masks else None,
        points=points,
        colours=colours,
    )


def project(scene: Scene, frame: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] (centres at +0.5) and z-depth [N] of points seen by a camera that looks along -z, y up."""
    pose = scene.c2w[frame]
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    z = -camera[:, 2]
    fx, fy, cx, cy = scene.intrinsics[frame]
    return np.stack([fx * camera[:, 0] / z + cx, -fy * camera[:, 1] / z + cy], axis=1), z
