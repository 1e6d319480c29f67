"""COLMAP folders: images/ and a sparse model (binary or text); cameras only, up to scale."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import map_size, natural_key, rgb_frames
from geo4d.formats.cameras import load_colmap


def _model(folder: Path) -> Path | None:
    candidates = (folder / "sparse" / "0", folder / "sparse", folder)
    return next(
        (path for path in candidates if any((path / f"images.{end}").is_file() for end in ("bin", "txt"))),
        None,
    )


def _find(root: Path) -> dict[str, Path]:
    if _model(root) is not None:
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and _model(path) is not None}


def _load(folder: Path, name: str) -> Sequence:
    sparse = _model(folder)
    if sparse is None:
        raise missing(READER, folder, "no sparse model")
    model = load_colmap(sparse)
    order = sorted(range(len(model.names)), key=lambda i: natural_key(model.names[i]))
    frames = [folder / "images" / model.names[i] for i in order]
    absent = [path.name for path in frames if not path.is_file()]
    if absent or not frames:
        raise missing(READER, folder, f"{len(absent)} of {len(frames)} images are not there, {absent[:1]}")
    notes = ["times are nominal: the layout has none"]
    if any(model.distortion):
        notes.append("images are distorted; intrinsics are the pinhole part")
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset="colmap",
        times_s=np.arange(len(frames), dtype=float),
        size=map_size(rgb),
        rgb=rgb,
        intrinsics=model.intrinsics[order],
        c2w=model.c2w[order],
        scale_kind="scale",
        pose_source="structure from motion",
        files=tuple(frames),
        notes=tuple(notes),
    )


READER = Reader(
    name="colmap",
    title="a COLMAP folder",
    url="https://colmap.github.io",
    layout="images/ and sparse/0/{cameras,images,points3D}.bin or .txt.",
    find=_find,
    load=_load,
)
