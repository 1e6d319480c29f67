"""nerfstudio folders: transforms.json with frames, cameras and optional depth."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import map_frames, map_size, png_depth, rgb_frames
from geo4d.datasets.readers.synthetic import load_depth_file
from geo4d.formats.nerfstudio import load_nerfstudio


def _find(root: Path) -> dict[str, Path]:
    if (root / "transforms.json").is_file():
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if (path / "transforms.json").is_file()}


def _load(folder: Path, name: str) -> Sequence:
    model = load_nerfstudio(folder)
    order = sorted(range(len(model.files)), key=lambda i: model.files[i])
    if model.times_s is not None:
        order = sorted(order, key=lambda i: model.times_s[i])  # type: ignore[index]
    frames = [folder / model.files[i] for i in order]
    absent = [path.name for path in frames if not path.is_file()]
    if absent or not frames:
        raise missing(READER, folder, f"{len(absent)} of {len(frames)} images are not there, {absent[:1]}")
    depth = None
    depth_files: list[Path] = []
    if model.depth_files:
        depth_files = [folder / model.depth_files[i] for i in order]
        unit = png_depth(1 / model.depth_unit)
        depth = map_frames(
            depth_files, lambda path: unit(path) if path.suffix == ".png" else load_depth_file(path)
        )
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset="nerfstudio",
        times_s=np.arange(len(frames), dtype=float) if model.times_s is None else model.times_s[order],
        size=map_size(depth if depth is not None else rgb),
        rgb=rgb,
        depth=depth,
        intrinsics=model.intrinsics[order],
        c2w=model.c2w[order],
        scale_kind="scale",
        depth_source="as given",
        pose_source="as given",
        files=(*frames, *depth_files, folder / "transforms.json"),
    )


READER = Reader(
    name="nerfstudio",
    title="a nerfstudio folder",
    url="https://docs.nerf.studio (ns-process-data)",
    layout="transforms.json and the images it names.",
    find=_find,
    load=_load,
)
