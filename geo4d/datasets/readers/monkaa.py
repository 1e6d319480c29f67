"""Monkaa (Scene Flow): rendered stereo; the left frame with depth = 1050 / disparity, baseline 1."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    list_files,
    map_frames,
    map_size,
    rgb_frames,
    same_stems,
)
from geo4d.formats.images import load_pfm

FPS = 24.0
VIDEO_FRAMES = slice(0, 110)
FOCAL, CENTRE = 1050.0, (479.5, 269.5)
MAX_DEPTH = {
    "a_rain_of_stones_x2": 300.0,
    "eating_x2": 70.0,
    "family_x2": 70.0,
    "flower_storm_x2": 300.0,
    "funnyworld_x2": 100.0,
    "lonetree_x2": 100.0,
    "top_view_x2": 100.0,
    "treeflight_x2": 300.0,
}
"""Scenes of GeometryCrafter's evaluation and where their sky begins (its scripts list eight; its paper says nine)."""


def _find(root: Path) -> dict[str, Path]:
    for base in (root, root / "Monkaa", root / "monkaa"):
        folder = base / "frames_cleanpass"
        if folder.is_dir() and (base / "disparity").is_dir():
            return {path.name: path for path in sorted(folder.iterdir()) if (path / "left").is_dir()}
    return {}


def _load(folder: Path, name: str) -> Sequence:
    frames = list_files(folder / "left")
    files = list_files(folder.parent.parent / "disparity" / name / "left", (".pfm",))
    if not frames:
        raise missing(READER, folder, "no frames in left/")
    files = same_stems(frames, files, READER, folder, f"disparity maps in disparity/{name}/left")
    far = MAX_DEPTH.get(name, np.inf)

    def load_depth(path: Path) -> np.ndarray:
        disparity = np.abs(load_pfm(path))
        with np.errstate(divide="ignore"):
            depth = FOCAL / disparity
        # Below one pixel, or beyond the scene's limit, lies sky.
        return np.where((disparity < 1) | (depth > far), np.inf, depth).astype(np.float32)

    depth = map_frames(files, load_depth)
    return Sequence(
        name=name,
        dataset="monkaa",
        times_s=np.arange(len(frames)) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=constant_intrinsics(len(frames), FOCAL, FOCAL, *CENTRE, integer_centres=True),
        scale_kind="scale",
        depth_source="rendered",
        files=(*frames, *files),
        notes=("camera poses of the dataset are not read: no protocol here scores them",),
    )


READER = Reader(
    name="monkaa",
    title="Monkaa (Scene Flow datasets)",
    url="https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html (research use)",
    layout="frames_cleanpass/<scene>/left/*.png and disparity/<scene>/left/*.pfm.",
    find=_find,
    load=_load,
)
