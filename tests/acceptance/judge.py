"""What other tools receive from a run, against the truth. Imports nothing of geo4d.

COLMAP models are read by pycolmap. nerfstudio folders are read by the rule of its dataparser (nerfstudio 1.1,
``data/dataparsers/nerfstudio_dataparser.py`` and ``data/utils/data_utils.py``): OpenGL camera axes; intrinsics per frame
or shared; depth is the stored value times 0.001 in the unit of the poses, unless a flag of its command line says
otherwise.
PLY headers and npz archives are read as their formats say.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap

NERFSTUDIO_DEPTH_UNIT = 1e-3
WITHIN = 0.1
"""Relative error that the confidence speaks about."""


@dataclass(frozen=True)
class Truth:
    """Exact geometry of a rendered clip.

    Attributes:
        depth: [T, H, W] z-depth; not finite in the sky.
        c2w: [T, 4, 4] OpenCV camera axes.
        intrinsics: [T, 3, 3] pixels, centres at +0.5.
        twins: pairs of frames that were taken from the same place, [N, 2]; may be empty.
    """

    depth: np.ndarray
    c2w: np.ndarray
    intrinsics: np.ndarray
    twins: np.ndarray


def load_truth(path: Path) -> Truth:
    with np.load(path) as found:
        return Truth(found["depth"], found["c2w"], found["intrinsics"], found["twins"])


@dataclass(frozen=True)
class Exports:
    """Folders and files that the command line wrote.

    Attributes:
        ply_frame: the frame that the PLY file shows.
    """

    colmap: Path
    nerfstudio: Path
    ply: Path
    npz: Path
    ply_frame: int


def measure(exports: Exports, truth: Truth) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """Every figure that has a limit, and (confidence, relative error) of pixels for a pool over clips."""
    count, height, width = truth.depth.shape
    colmap_k, colmap_c2w = read_colmap(exports.colmap, (height, width))
    k, c2w, depth = read_nerfstudio(exports.nerfstudio, (height, width))
    if len(c2w) != count or len(colmap_c2w) != count:
        raise ValueError(
            f"expected {count} frames, got {len(colmap_c2w)} in COLMAP, {len(c2w)} in nerfstudio"
        )
    stands = np.ptp(truth.c2w[:, :3, 3], axis=0).max() < 1e-6
    scale, rotation, shift = (
        (np.nan, np.eye(3), np.zeros(3)) if stands else umeyama(c2w[:, :3, 3], truth.c2w[:, :3, 3])
    )
    known = np.isfinite(truth.depth) & (truth.depth > 0)
    seen = known & (depth > 0)
    predicted, reference = depth[seen], truth.depth[seen]
    factor = np.median(reference / predicted)
    figures = {
        "fy_fx": float(
            max(
                np.abs(colmap_k[:, 1, 1] / colmap_k[:, 0, 0] - 1).max(),
                np.abs(k[:, 1, 1] / k[:, 0, 0] - 1).max(),
            )
        ),
        "focal": float(np.abs(k[:, 0, 0] / truth.intrinsics[:, 0, 0] - 1).mean()),
        "centre": float(np.abs((k[:, :2, 2] - truth.intrinsics[:, :2, 2]) / np.array([width, height])).max()),
        "two_tools": max(float(np.abs(colmap_k[:, i, i] / k[:, i, i] - 1).max()) for i in (0, 1)),
        "first_camera": float(np.abs(colmap_c2w[0] - np.eye(4)).max()),
        "one_scale": float(abs(factor / scale - 1)),
        "abs_rel": float(np.mean(np.abs(predicted * factor - reference) / reference)),
        "covered": float(seen.sum() / known.sum()),
    }
    if stands:  # what the camera seems to do, as a share of the median depth
        figures["stays"] = float(
            np.linalg.norm(c2w[:, :3, 3] - c2w[0, :3, 3], axis=1).max() / np.median(predicted)
        )
    focal_change = k[-1, 0, 0] / k[0, 0, 0], truth.intrinsics[-1, 0, 0] / truth.intrinsics[0, 0, 0]
    figures["zoom"] = float(abs(focal_change[0] / focal_change[1] - 1))
    if len(truth.twins):
        centres = (scale * (rotation @ c2w[:, :3, 3].T)).T + shift
        apart = np.linalg.norm(centres[truth.twins[:, 0]] - centres[truth.twins[:, 1]], axis=1)
        extent = np.linalg.norm(truth.c2w[:, :3, 3] - truth.c2w[0, :3, 3], axis=1).max()
        figures["returns"] = float(apart.max() / extent)
    with np.load(exports.npz) as archive:
        own, confidence = archive["depth"], archive["confidence"]
    points = ply_points(exports.ply)
    figures["kept"] = points / max(1, int(np.isfinite(own[exports.ply_frame]).sum()))
    own = own if own.shape == truth.depth.shape else np.stack([_nearest(d, (height, width)) for d in own])
    confidence = np.stack([_nearest(c, (height, width)) for c in confidence])
    both = known & np.isfinite(own)
    error = np.abs(own[both] * np.median(truth.depth[both] / own[both]) / truth.depth[both] - 1)
    claimed = confidence[both]
    figures["claim"] = float(abs(claimed.mean() - (error <= WITHIN).mean()))
    pick = np.linspace(0, len(error) - 1, 20_000).astype(int) if len(error) else np.zeros(0, int)
    return figures, (claimed[pick], error[pick])


def pool(samples: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Confidence over all clips: largest gap of ten groups of like confidence, and rank correlation with -error."""
    confidence = np.concatenate([claimed for claimed, _ in samples.values()])
    error = np.concatenate([found for _, found in samples.values()])
    order = np.argsort(confidence, kind="stable")
    gaps = [
        abs(confidence[part].mean() - (error[part] <= WITHIN).mean()) for part in np.array_split(order, 10)
    ]
    return {
        "decile_gap": float(max(gaps)),
        "rank": float(np.corrcoef(ranks(confidence), ranks(-error))[0, 1]),
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with equal values at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def read_colmap(folder: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """[T, 3, 3] intrinsics in pixels of pictures of ``size``, and [T, 4, 4] camera to world, by name of the picture."""
    model = pycolmap.Reconstruction(str(next(folder.rglob("cameras.*")).parent))
    intrinsics, poses = [], []
    for image in sorted(model.images.values(), key=lambda found: found.name):
        camera = model.cameras[image.camera_id]
        k = np.array(camera.calibration_matrix())
        k[0] *= size[1] / camera.width
        k[1] *= size[0] / camera.height
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        intrinsics.append(k)
        poses.append(np.linalg.inv(np.vstack([pose.matrix(), [0, 0, 0, 1]])))
    return np.array(intrinsics), np.array(poses)


def read_nerfstudio(folder: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intrinsics in pixels of ``size``, camera to world (OpenCV axes), depth in the unit of the poses, 0 for none."""
    meta = json.loads((folder / "transforms.json").read_text())
    intrinsics, poses, maps = [], [], []
    for frame in sorted(meta["frames"], key=lambda found: found["file_path"]):

        def value(name: str, frame: dict = frame) -> float:
            return float(frame.get(name, meta.get(name)))

        x, y = size[1] / value("w"), size[0] / value("h")
        intrinsics.append(
            [[value("fl_x") * x, 0, value("cx") * x], [0, value("fl_y") * y, value("cy") * y], [0, 0, 1]]
        )
        poses.append(np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1]))
        stored = cv2.imread(str(folder / frame["depth_file_path"]), cv2.IMREAD_ANYDEPTH)
        maps.append(_nearest(stored.astype(np.float64) * NERFSTUDIO_DEPTH_UNIT, size))
    return np.array(intrinsics), np.array(poses), np.array(maps)


def ply_points(path: Path) -> int:
    """Vertices that the header declares."""
    header = path.read_bytes()[:4000]
    found = re.search(rb"element vertex (\d+)", header)
    if found is None:
        raise ValueError(f"expected 'element vertex N' in the header of {path}, got {header[:100]!r}")
    return int(found.group(1))


def umeyama(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation that lay [N, 3] ``source`` on ``target`` (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - target_mean).T @ (source - source_mean) / len(source))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = np.trace(np.diag(s) @ sign) / ((source - source_mean) ** 2).sum(1).mean()
    rotation = u @ sign @ vt
    return float(scale), rotation, target_mean - scale * rotation @ source_mean


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST)
