"""Dynamic Replica: rendered rooms with moving people and animals; the left camera of a stereo pair.

Get it from https://dynamic-stereo.github.io (licence to accept, non-commercial), with the script of
facebookresearch/dynamic_stereo.

- Depth: PNG of 16 bits that are half-precision numbers, z-depth in metres. 0 and what is not finite are unknown (NaN);
  nothing marks the sky (rooms).
- Cameras: ``frame_annotations_<split>.jgz``, PyTorch3D's convention: x left, y up; row vectors, world to camera. Focal
  length and principal point in normalised coordinates (``ndc_isotropic`` or ``ndc_norm_image_bounds``), edge to edge.
- ``dynamic``: the masks of foreground, that is people and animals.
- Times: frame number / 30; the rate was not verified.

Source: README of facebookresearch/dynamic_stereo; cameras, depth and folders, MapAnything (conversion/dynamicreplica.py)
and CUT3R (preprocess_dynamic_replica.py), which agree.
"""

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import find_below, float16_png, known_depth, map_frames, map_size, rgb_frames
from geo4d.errors import InputError
from geo4d.formats.images import load_image

FPS = 30.0
SPLITS = ("train", "valid", "test", "real")


def _find(root: Path) -> dict[str, Path]:
    def is_sequence(path: Path) -> bool:
        return path.name.endswith("_left") and (path / "images").is_dir()

    return find_below(root, SPLITS, is_sequence)


@lru_cache(maxsize=4)
def _annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Folder of a camera's pictures -> its frames.

    Raises:
        InputError: damaged.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            entries = json.load(file)
        grouped: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            grouped.setdefault(entry["image"]["path"].split("/")[0], []).append(entry)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected a list of frames in {path}, got: {error!r}; the file may be truncated"
        ) from error
    return grouped


def _intrinsics(viewpoint: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    half = np.array([size[1], size[0]]) / 2
    kind = str(viewpoint.get("intrinsics_format", "ndc_norm_image_bounds")).lower()
    if kind not in ("ndc_isotropic", "ndc_norm_image_bounds"):
        raise InputError(f"expected intrinsics_format ndc_isotropic or ndc_norm_image_bounds, got {kind!r}")
    unit = half if kind == "ndc_norm_image_bounds" else np.full(2, half.min())
    focal, centre = (
        np.asarray(viewpoint["focal_length"], float),
        np.asarray(viewpoint["principal_point"], float),
    )
    matrix = np.eye(3)
    matrix[[0, 1], [0, 1]] = focal * unit
    matrix[:2, 2] = half - centre * unit
    return matrix


def _pose(viewpoint: dict[str, Any]) -> np.ndarray:
    # PyTorch3D: camera = world @ R + T as rows, x left and y up. With F = diag(-1, -1, 1), ours is F (R^T world + T).
    flip = np.diag([-1.0, -1.0, 1.0])
    w2c = np.eye(4)
    w2c[:3, :3] = flip @ np.asarray(viewpoint["R"], float).T
    w2c[:3, 3] = flip @ np.asarray(viewpoint["T"], float)
    return np.linalg.inv(w2c)


def _load(folder: Path, name: str) -> Sequence:
    base = folder.parent
    files = sorted(base.glob("frame_annotations_*.jgz"))
    if not files:
        raise missing(READER, base, "no frame_annotations_<split>.jgz beside the sequences")
    entries = [entry for file in files for entry in _annotations(file).get(folder.name, ())]
    if not entries:
        raise missing(READER, base, f"no entry for {folder.name} in {', '.join(file.name for file in files)}")
    entries.sort(key=lambda entry: entry["frame_number"])
    frames = [base / entry["image"]["path"] for entry in entries]
    depth_files = [base / entry["depth"]["path"] for entry in entries]
    mask_files = [base / entry["mask"]["path"] for entry in entries if entry.get("mask")]
    absent = [file for file in (*frames, *depth_files) if not file.is_file()]
    if absent:
        raise missing(
            READER, base, f"{len(absent)} files are not there, the first is {absent[0].relative_to(base)}"
        )
    dynamic = None
    if len(mask_files) == len(frames) and all(file.is_file() for file in mask_files):
        dynamic = map_frames(mask_files, lambda file: load_image(file)[..., 0] > 0.5, bool)
    depth = map_frames(depth_files, lambda file: known_depth(float16_png(file)))
    size = map_size(depth)
    return Sequence(
        name=name,
        dataset="dynamic-replica",
        times_s=np.array([entry["frame_number"] for entry in entries]) / FPS,
        size=size,
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=np.stack([_intrinsics(entry["viewpoint"], size) for entry in entries]),
        c2w=np.stack([_pose(entry["viewpoint"]) for entry in entries]),
        dynamic=dynamic,
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, *(mask_files if dynamic is not None else ())),
        notes=() if dynamic is not None else ("no masks of moving things in the folder",),
    )


READER = Reader(
    name="dynamic-replica",
    title="Dynamic Replica",
    url="https://dynamic-stereo.github.io (licence to accept, non-commercial)",
    layout="<split>/frame_annotations_<split>.jgz, <split>/<sequence>_left/images/*.png, depths/*.geometric.png (half-"
    "precision bits in uint16, m), masks/*.png.",
    find=_find,
    load=_load,
)
