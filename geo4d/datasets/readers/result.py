"""A result of ``geo4d reconstruct`` as ground truth: to train or score on what another model, or a longer run, has found.

Depth, cameras and what moves are the result's; pictures are read again from its source, which must still be there. Frames
that are not reliable have no pose and no depth; a result of several scenes is one sequence for each.
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.types import FrameArray, LazyFrames

MOVES = 0.5
"""Probability from which a pixel counts as moving."""


def _find(root: Path) -> dict[str, Path]:
    def is_result(path: Path) -> bool:
        return (path / "manifest.json").is_file() and (path / "arrays.zarr").is_dir()

    if is_result(root):
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and is_result(path)}


def _load(folder: Path, name: str) -> Sequence:
    from geo4d.results.reader import load_result

    result = load_result(folder)
    if result.rgb is None:
        raise missing(
            READER, folder, "the video that it was made from is not where it was, so there are no pictures"
        )
    if result.scene is not None and len(np.unique(result.scene)) > 1:
        raise missing(
            READER, folder, "several scenes, each with a world of its own; cut the video at its shots"
        )
    trusted = (
        np.ones(result.num_frames, bool) if result.reliable is None else np.asarray(result.reliable, bool)
    )

    def depth(t: int) -> np.ndarray:
        values = np.asarray(result.depth[t], np.float32)
        return values if trusted[t] else np.full_like(values, np.nan)

    moving: FrameArray | None = None
    if result.dynamic is not None:
        probability = result.dynamic
        moving = LazyFrames(
            tuple(probability.shape), np.dtype(bool), lambda t: np.asarray(probability[t]) > MOVES
        )
    c2w = None
    if result.c2w is not None:
        c2w = np.where(trusted[:, None, None], np.asarray(result.c2w, np.float64), np.nan)
    return Sequence(
        name=name,
        dataset="result",
        times_s=np.asarray(result.times_s, np.float64),
        size=result.size,
        rgb=result.rgb,
        depth=LazyFrames(tuple(result.depth.shape), np.dtype(np.float32), depth),
        intrinsics=np.asarray(result.intrinsics, np.float64),
        c2w=c2w,
        dynamic=moving,
        scale_kind=result.scale_kind,
        depth_source="a geo4d result",
        pose_source="a geo4d result",
        files=(folder / "manifest.json",),
        notes=()
        if trusted.all()
        else (f"{int((~trusted).sum())} frames are not reliable and have no truth",),
    )


READER = Reader(
    name="result",
    title="a geo4d result",
    url="geo4d reconstruct VIDEO -o RESULT makes one",
    layout="a folder that geo4d reconstruct wrote, and its video where it was.",
    find=_find,
    load=_load,
)
