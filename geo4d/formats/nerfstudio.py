"""Folders that nerfstudio reads: ``transforms.json`` and what it names."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from geo4d.errors import InputError
from geo4d.formats.files import existing_file, new_file
from geo4d.geometry.poses import opencv_to_opengl, opengl_to_opencv

NERFSTUDIO_DEPTH_UNIT = 0.001
"""Unit of the poses per step of a depth image, unless nerfstudio's command line says otherwise (1.1.5)."""


@dataclass(frozen=True)
class NerfstudioModel:
    """A nerfstudio ``transforms.json`` of N frames.

    Attributes:
        files: image paths relative to the json.
        depth_files: depth image paths, empty when there are none.
        mask_files: mask image paths (0 = ignored by training), empty when there are none.
        ply_file: path of a point cloud in the world and unit of the poses, or None.
        intrinsics: pixels, centres at +0.5.
        sizes: (height, width).
        c2w: OpenCV camera axes; the world is the file's.
        depth_unit: factor from stored depth values to the unit of the poses. nerfstudio takes it from its command line
            (``depth_unit_scale_factor``, 0.001 unless given), never from the file.
        times_s: seconds, or None.
    """

    files: list[str]
    intrinsics: Float[np.ndarray, "N 3 3"]
    sizes: list[tuple[int, int]]
    c2w: Float[np.ndarray, "N 4 4"]
    depth_files: list[str] = field(default_factory=list)
    depth_unit: float = 0.001
    times_s: Float[np.ndarray, " N"] | None = None
    mask_files: list[str] = field(default_factory=list)
    ply_file: str | None = None


def save_nerfstudio(path: str | Path, model: NerfstudioModel, notes: Mapping[str, Any] | None = None) -> None:
    """Write ``transforms.json`` for nerfstudio 1.1.5: OpenGL camera axes, per-frame intrinsics, no distortion.

    There is no ``applied_transform`` and no ``applied_scale``: nerfstudio brings the points of ``ply_file_path`` into its
    world with the transform and the scale that it finds for the poses, times ``applied_scale``, which poses do not get.

    Args:
        notes: extra top-level entries (convention, units, ...).
    Raises:
        ValueError: a depth unit other than 0.001, which nerfstudio would not see, or lists of different lengths.
    """
    if model.depth_files and model.depth_unit != NERFSTUDIO_DEPTH_UNIT:
        raise ValueError(
            f"expected depth in steps of {NERFSTUDIO_DEPTH_UNIT} of the unit of the poses, which is what nerfstudio "
            f"reads, got {model.depth_unit}; scale poses, points and depth by one factor"
        )
    for name, files in (("depth_files", model.depth_files), ("mask_files", model.mask_files)):
        if files and len(files) != len(model.files):
            raise ValueError(
                f"expected {name} for each of {len(model.files)} images or none, got {len(files)}"
            )
    opengl = opencv_to_opengl(torch.from_numpy(np.asarray(model.c2w, np.float64))).numpy()
    frames = []
    for i, file in enumerate(model.files):
        k, (height, width) = model.intrinsics[i], model.sizes[i]
        frame: dict[str, Any] = {"file_path": file, "transform_matrix": opengl[i].tolist()}
        frame |= {"fl_x": float(k[0, 0]), "fl_y": float(k[1, 1]), "cx": float(k[0, 2]), "cy": float(k[1, 2])}
        frame |= {"w": width, "h": height}
        if model.depth_files:
            frame["depth_file_path"] = model.depth_files[i]
        if model.mask_files:
            frame["mask_path"] = model.mask_files[i]
        if model.times_s is not None:
            frame["time"] = float(model.times_s[i])
        frames.append(frame)
    document: dict[str, Any] = {"camera_model": "OPENCV", **(notes or {})}
    if model.ply_file is not None:
        document["ply_file_path"] = model.ply_file
    document["frames"] = frames
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")


def load_nerfstudio(path: str | Path) -> NerfstudioModel:
    """Read ``transforms.json`` (or the folder that holds it); shared or per-frame intrinsics; distortion is refused.

    Depth is in steps of 0.001, as nerfstudio reads it, unless the file says otherwise with ``depth_unit_scale_factor``,
    which some writers put there although nerfstudio does not look at it.

    Raises:
        InputError: missing or malformed, or the cameras are distorted.
    """
    path = Path(path)
    path = existing_file(path / "transforms.json" if path.is_dir() else path, "a nerfstudio transforms.json")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        frames = document["frames"]
        matrices, sizes, poses = [], [], []
        for frame in frames:
            values = {**document, **frame}
            if any(abs(float(values.get(key, 0))) > 0 for key in ("k1", "k2", "k3", "k4", "p1", "p2")):
                raise InputError(
                    f"expected pinhole cameras in {path}, got distortion; undistort the images first"
                )
            width, height = int(values["w"]), int(values["h"])
            if "fl_x" in values:
                fx = float(values["fl_x"])
            else:
                fx = 0.5 * width / math.tan(0.5 * float(values["camera_angle_x"]))
            fy = float(values.get("fl_y", fx))
            cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
            matrices.append([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            sizes.append((height, width))
            poses.append(frame["transform_matrix"])
        opengl = torch.tensor(poses, dtype=torch.float64)
        if opengl.shape != (len(frames), 4, 4) or not bool(opengl.isfinite().all()):
            raise ValueError(f"expected finite matrices [{len(frames)}, 4, 4], got {list(opengl.shape)}")
        depth_files = [frame["depth_file_path"] for frame in frames if "depth_file_path" in frame]
        mask_files = [frame["mask_path"] for frame in frames if "mask_path" in frame]
        times = [float(frame["time"]) for frame in frames if "time" in frame]
        return NerfstudioModel(
            files=[frame["file_path"] for frame in frames],
            intrinsics=np.array(matrices, np.float64).reshape(-1, 3, 3),
            sizes=sizes,
            c2w=opengl_to_opencv(opengl).numpy(),
            depth_files=depth_files if len(depth_files) == len(frames) else [],
            depth_unit=float(document.get("depth_unit_scale_factor", NERFSTUDIO_DEPTH_UNIT)),
            mask_files=mask_files if len(mask_files) == len(frames) else [],
            ply_file=document.get("ply_file_path"),
            times_s=np.array(times) if len(times) == len(frames) else None,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError) as error:
        raise InputError(
            f"expected a nerfstudio transforms.json in {path}, but it is malformed: {error!r}"
        ) from error
