"""Hypersim: rendered rooms; every camera trajectory is a set of views, not a video (``still``).

Get it from https://github.com/apple/ml-hypersim (CC BY-SA 3.0); ``metadata_camera_parameters.csv`` is in that repository
(contrib/mikeroberts3000) and must lie beside the scenes.

- Depth: ``depth_meters``, which is the distance to the camera's centre in metres; turned into z-depth here. NaN is
  missing. Where ``render_entity_id`` is there, -1 (no geometry) is the sky (+inf).
- Cameras: ``camera_keyframe_orientations`` (camera to world, OpenGL axes) and ``_positions`` (in asset units, with metres
  of ``settings_units_info_meters_scale``). ``M_cam_from_uv`` gives the ray of a point of the picture; scenes with shifted
  or tilted lenses are pinhole cameras whose axes are turned, so the matrix is parted into intrinsics and a rotation,
  which goes into ``c2w``.
- Colour: ``frame.*.tonemap.jpg`` where it is there, else ``color.hdf5`` with the rule of the authors' tone mapping (the
  90th percentile of brightness becomes 0.8, gamma 2.2). None where neither is there.
- Times: the frame numbers, which mean nothing.
- Checked on the table of all 482 scenes: the split camera projects points within 0.15 px of where ``M_proj`` puts them;
  23 scenes whose pixels are sheared (tilt and shift together) are refused.

Source: README.md, contrib/mikeroberts3000 (jupyter/01_casting_rays_that_match_hypersim_images.ipynb) and
code/python/tools/scene_generate_images_tonemap.py of apple/ml-hypersim.
"""

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import known_depth, load_hdf5, range_to_depth, rgb_frames
from geo4d.errors import InputError
from geo4d.types import FrameArray, LazyFrames

CAMERA_FILE = "metadata_camera_parameters.csv"
PERCENTILE, BRIGHTNESS, GAMMA = 90, 0.8, 2.2


def _find(root: Path) -> dict[str, Path]:
    def trajectories(scene: Path) -> dict[str, Path]:
        return {
            f"{scene.name}/{path.name}": path
            for path in sorted((scene / "_detail").glob("cam_*"))
            if (path / "camera_keyframe_positions.hdf5").is_file()
        }

    if trajectories(root):
        return trajectories(root)
    return {name: path for scene in sorted(root.glob("ai_*")) for name, path in trajectories(scene).items()}


@lru_cache(maxsize=2)
def _camera_table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["scene_name"]: row for row in csv.DictReader(file)}


def split_rays(matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics and rotation of the camera whose rays a matrix gives.

    Args:
        matrix: [3, 3], from (u, v, 1), both in [-1, 1], v up, to rays in OpenGL axes.
        size: (height, width).
    Returns:
        intrinsics [3, 3] in pixels, and the rotation from our camera's axes to OpenGL's.
    Raises:
        InputError: the pixels of that camera are not rectangles, or its rays are mirrored.
    """
    from scipy.linalg import rq

    height, width = size
    uv_from_pixels = np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])
    # Rays in OpenGL axes = rotation^T intrinsics^-1 pixels, up to a positive factor.
    upper, rotation = rq(np.linalg.inv(matrix @ uv_from_pixels))
    signs = np.diag(np.sign(np.diag(upper)))
    intrinsics, rotation = upper @ signs, signs @ rotation
    if np.linalg.det(rotation) < 0:
        raise InputError("expected rays that leave the camera, got a matrix M_cam_from_uv that mirrors them")
    intrinsics = intrinsics / intrinsics[2, 2]
    if abs(intrinsics[0, 1]) > 1e-3 * intrinsics[0, 0]:
        raise InputError(
            f"expected a camera with rectangular pixels, got a skew of {intrinsics[0, 1]:.3g} px"
        )
    intrinsics[0, 1] = 0
    return intrinsics, rotation.T


def tone_map(colour: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1] from linear radiance.

    Args:
        colour: linear, of any brightness.
        known: pixels that set the exposure.
    """
    brightness = colour @ np.array([0.3, 0.59, 0.11])
    scale = 1.0
    if known.any():
        now = np.percentile(brightness[known], PERCENTILE)
        scale = 0.0 if now < 1e-4 else BRIGHTNESS**GAMMA / now
    return np.clip(np.maximum(scale * colour, 0) ** (1 / GAMMA), 0, 1).astype(np.float32)


def _colour(
    scene: Path, camera: str, numbers: list[str], size: tuple[int, int]
) -> tuple[FrameArray | None, list[Path]]:
    pictures = [
        scene / "images" / f"scene_{camera}_final_preview" / f"frame.{number}.tonemap.jpg"
        for number in numbers
    ]
    if all(path.is_file() for path in pictures):
        return rgb_frames(pictures), pictures
    linear = [
        scene / "images" / f"scene_{camera}_final_hdf5" / f"frame.{number}.color.hdf5" for number in numbers
    ]
    there = [path.is_file() for path in linear]
    if not any(there):
        return None, []
    if not all(there):
        raise missing(
            READER,
            scene,
            f"{there.count(False)} of {len(there)} colour pictures, {linear[there.index(False)].name}",
        )

    def compute(t: int) -> np.ndarray:
        colour = load_hdf5(linear[t], "dataset").astype(np.float32)
        entity = _entity_file(scene, camera, numbers[t])
        known = np.ones(size, bool)
        if entity.is_file():
            known = load_hdf5(entity, "dataset") != -1
        return tone_map(colour, known)

    return LazyFrames((len(numbers), *size, 3), np.dtype(np.float32), compute), linear


def _entity_file(scene: Path, camera: str, number: str) -> Path:
    return scene / "images" / f"scene_{camera}_geometry_hdf5" / f"frame.{number}.render_entity_id.hdf5"


def _load(folder: Path, name: str) -> Sequence:
    scene, camera = folder.parent.parent, folder.name
    table = next(
        (base / CAMERA_FILE for base in (scene.parent, scene) if (base / CAMERA_FILE).is_file()), None
    )
    if table is None:
        raise missing(READER, scene.parent, f"no {CAMERA_FILE} beside the scenes")
    if scene.name not in _camera_table(table):
        raise missing(READER, scene.parent, f"no row for {scene.name} in {CAMERA_FILE}")
    row = _camera_table(table)[scene.name]
    geometry = scene / "images" / f"scene_{camera}_geometry_hdf5"
    depth_files = sorted(geometry.glob("frame.*.depth_meters.hdf5"))
    if not depth_files:
        raise missing(READER, scene, f"no images/{geometry.name}/frame.*.depth_meters.hdf5")
    numbers = [path.name.split(".")[1] for path in depth_files]
    size = (int(float(row["settings_output_img_height"])), int(float(row["settings_output_img_width"])))
    rays = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
    intrinsics, turn = split_rays(rays, size)
    poses = [folder / f"camera_keyframe_{kind}.hdf5" for kind in ("positions", "orientations")]
    chosen = [int(number) for number in numbers]
    positions, orientations = (load_hdf5(path, "dataset") for path in poses)
    if max(chosen) >= len(positions) or len(positions) != len(orientations):
        raise missing(
            READER,
            folder,
            f"{len(positions)} positions, {len(orientations)} orientations, frame {max(chosen)}",
        )
    c2w = np.tile(np.eye(4), (len(chosen), 1, 1))
    c2w[:, :3, :3] = orientations[chosen] @ turn
    c2w[:, :3, 3] = positions[chosen] * float(row["settings_units_info_meters_scale"])

    def depth(t: int) -> np.ndarray:
        distance = load_hdf5(depth_files[t], "dataset").astype(np.float32)
        if distance.shape != size:
            raise InputError(f"expected {size} as in {CAMERA_FILE}, got {distance.shape} in {depth_files[t]}")
        metres = known_depth(range_to_depth(distance, intrinsics))
        entity = _entity_file(scene, camera, numbers[t])
        if entity.is_file():
            metres = np.where(load_hdf5(entity, "dataset") == -1, np.inf, metres)
        return metres

    rgb, colour_files = _colour(scene, camera, numbers, size)
    notes = ["views of one place, no video"]
    if not all(_entity_file(scene, camera, number).is_file() for number in numbers):
        notes.append("no render_entity_id for every frame: nothing marks the sky there")
    return Sequence(
        name=name,
        dataset="hypersim",
        times_s=np.array(chosen, float),
        size=size,
        rgb=rgb,
        depth=LazyFrames((len(chosen), *size), np.dtype(np.float32), depth),
        intrinsics=np.tile(intrinsics, (len(chosen), 1, 1)),
        c2w=c2w,
        depth_source="rendered",
        pose_source="rendered",
        files=(*colour_files, *depth_files, *poses, table),
        notes=tuple(notes),
    )


READER = Reader(
    name="hypersim",
    title="Hypersim",
    url="https://github.com/apple/ml-hypersim (CC BY-SA 3.0)",
    layout=f"{CAMERA_FILE}, <scene>/_detail/cam_XX/camera_keyframe_*.hdf5, <scene>/images/scene_cam_XX_geometry_hdf5/"
    "frame.IIII.depth_meters.hdf5 and render_entity_id.hdf5, scene_cam_XX_final_hdf5/frame.IIII.color.hdf5.",
    find=_find,
    load=_load,
    still=True,
)
