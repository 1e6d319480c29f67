"""DIODE validation images: every image is a sequence of one frame; depth near depth edges is masked out."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import constant_intrinsics, rgb_frames
from geo4d.errors import InputError
from geo4d.formats.arrays import load_npy
from geo4d.types import LazyFrames

INTRINSICS = (886.81, 886.81, 512.0, 384.0)
EDGE_LOW, EDGE_HIGH, EDGE_RADIUS = 50, 100, 2
"""Canny thresholds on 8-bit logarithmic depth, and how far the mask grows, pixels. The paper names the filter only."""


def _find(root: Path) -> dict[str, Path]:
    for base in (root / "val", root):
        if any((base / kind).is_dir() for kind in ("indoors", "outdoor")):
            files = sorted(base.glob("*/scene_*/scan_*/*_depth.npy"))
            return {
                path.name.removesuffix("_depth.npy"): path.with_name(path.name.replace("_depth.npy", ".png"))
                for path in files
            }
    return {}


def edge_mask(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """True near jumps of depth, where the laser scan mixes foreground and background.

    Source: GeometryCrafter, supplement 1.2 (Canny filter on the masks of DIODE).
    """
    import cv2

    if not valid.any():
        return np.zeros_like(valid)
    log = np.log(np.where(valid, depth, np.median(depth[valid])).clip(min=1e-3))
    low, high = np.percentile(log[valid], (1, 99))
    grey = ((log - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    edges = cv2.Canny(grey, EDGE_LOW, EDGE_HIGH)
    kernel = np.ones((2 * EDGE_RADIUS + 1, 2 * EDGE_RADIUS + 1), np.uint8)
    return cv2.dilate(edges, kernel) > 0


def _load(path: Path, name: str) -> Sequence:
    depth_file, mask_file = (path.with_name(f"{path.stem}{end}") for end in ("_depth.npy", "_depth_mask.npy"))
    absent = [file.name for file in (path, depth_file, mask_file) if not file.is_file()]
    if absent:
        raise missing(READER, path.parent, f"{', '.join(absent)} not there")
    rgb = rgb_frames([path])
    size = (rgb.shape[1], rgb.shape[2])

    def depth(t: int) -> np.ndarray:
        try:
            values = load_npy(depth_file).astype(np.float32).reshape(size)
            valid = load_npy(mask_file).reshape(size) > 0
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"expected depth and mask of {size} in {depth_file}, got: {error}") from error
        valid = valid & (values > 0)
        return np.where(valid & ~edge_mask(values, valid), values, np.nan).astype(np.float32)

    return Sequence(
        name=name,
        dataset="diode",
        times_s=np.zeros(1),
        size=size,
        rgb=rgb,
        depth=LazyFrames((1, *size), np.dtype(np.float32), depth),
        intrinsics=constant_intrinsics(1, *INTRINSICS, integer_centres=False),
        depth_source="laser scanner",
        files=(path, depth_file, mask_file),
    )


READER = Reader(
    name="diode",
    title="DIODE (validation)",
    url="https://diode-dataset.org (MIT)",
    layout="val/indoors|outdoor/scene_*/scan_*/NAME.png, NAME_depth.npy, NAME_depth_mask.npy.",
    find=_find,
    load=_load,
    still=True,
)
