"""ICL-NUIM living room as augmented by Redwood: image/, depth/ (mm), poses from an Open3D pose graph."""

import json
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    list_files,
    map_frames,
    map_size,
    png_depth,
    rgb_frames,
    same_stems,
)

FPS = 30.0


def _graph(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("fragment_optimized_*.json"))), None)


def _find(root: Path) -> dict[str, Path]:
    def is_scene(path: Path) -> bool:
        return (path / "image").is_dir() and (path / "depth").is_dir() and _graph(path) is not None

    if is_scene(root):
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and is_scene(path)}


def _load(folder: Path, name: str) -> Sequence:
    graph = _graph(folder)
    frames = list_files(folder / "image")
    depth_files = list_files(folder / "depth")
    if not frames or graph is None:
        raise missing(READER, folder, "no images in image/ or no pose graph")
    depth_files = same_stems(frames, depth_files, READER, folder, "depth maps in depth/")
    nodes = json.loads(graph.read_text(encoding="utf-8"))["nodes"]
    if len(nodes) < len(frames):
        raise missing(READER, folder, f"{len(frames)} frames but {len(nodes)} poses in {graph.name}")
    # Open3D stores matrices column by column.
    c2w = np.array([node["pose"] for node in nodes[: len(frames)]], np.float64).reshape(-1, 4, 4)
    c2w = np.ascontiguousarray(c2w.transpose(0, 2, 1))
    depth = map_frames(depth_files, png_depth(1000.0))
    return Sequence(
        name=name,
        dataset="iclnuim",
        times_s=np.arange(len(frames)) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        # The Redwood renderings use 525; the 481.2 / 480 of the original ICL-NUIM do not fit them.
        intrinsics=constant_intrinsics(len(frames), 525.0, 525.0, 319.5, 239.5, integer_centres=True),
        c2w=c2w,
        depth_source="rendered",
        pose_source="optimised estimates (pose graph), not ground truth",
        files=(*frames, *depth_files, graph),
        notes=("poses are optimised estimates that agree with depth to about 0.2 %",),
    )


READER = Reader(
    name="iclnuim",
    title="ICL-NUIM living room, Redwood-augmented",
    url="http://redwood-data.org/indoor/dataset.html",
    layout="<scene>/image/*.jpg, depth/*.png (uint16, mm), fragment_optimized_NNN.json (Open3D pose graph).",
    find=_find,
    load=_load,
)
