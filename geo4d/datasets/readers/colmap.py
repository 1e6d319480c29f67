"""COLMAP folders: images/ and a sparse model (binary or text); cameras up to scale, depth where there is some.

Depth is looked for in ``depth/`` (for each picture a file of its name: npz, npy, EXR or 16-bit PNG in millimetres, in the
unit of the model) and, in a dense workspace, in ``stereo/depth_maps/<picture>.geometric.bin``, in which 0 is missing.

Source: the layout of depth maps in COLMAP's documentation (scripts/python/read_write_dense.py).
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import known_depth, map_frames, map_size, natural_key, rgb_frames
from geo4d.datasets.readers.synthetic import DEPTH_SUFFIXES, load_depth_file
from geo4d.errors import InputError
from geo4d.formats.colmap import load_colmap
from geo4d.formats.files import existing_file


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


def _depth_files(folder: Path, names: list[str]) -> list[Path]:
    """A depth map for every picture, or none at all.

    Raises:
        InputError: only some pictures have one.
    """
    candidates = [
        [folder / "stereo" / "depth_maps" / f"{name}.geometric.bin"]
        + [(folder / "depth" / name).with_suffix(suffix) for suffix in DEPTH_SUFFIXES]
        for name in names
    ]
    found = [next((path for path in paths if path.is_file()), None) for paths in candidates]
    if not any(found):
        return []
    absent = [name for name, path in zip(names, found, strict=True) if path is None]
    if absent:
        raise missing(
            READER,
            folder,
            f"{len(absent)} of {len(names)} pictures have no depth map, {absent[0]} is the first",
        )
    return [path for path in found if path is not None]


def _load_depth(path: Path) -> np.ndarray:
    if path.suffix == ".bin":
        return known_depth(load_colmap_map(path))
    return load_depth_file(path)


def load_colmap_map(path: Path) -> np.ndarray:
    """[H, W] float32 of a dense COLMAP map: ``width&height&channels&`` and numbers, row by row.

    Raises:
        InputError: not such a file, or cut short.
    """
    data = existing_file(path, "a depth map").read_bytes()
    words = data.split(b"&", 3)
    if len(words) != 4 or not all(word.isdigit() for word in words[:3]) or words[2] != b"1":
        raise InputError(f"expected a COLMAP depth map (width&height&1&...) in {path}, got {data[:20]!r}")
    width, height = int(words[0]), int(words[1])
    if len(words[3]) != 4 * width * height:
        raise InputError(
            f"expected {4 * width * height} bytes of {width} x {height} in {path}, got {len(words[3])}"
        )
    return np.frombuffer(words[3], "<f4").reshape(height, width)


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
    depth_files = _depth_files(folder, [model.names[i] for i in order])
    depth = map_frames(depth_files, _load_depth) if depth_files else None
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset="colmap",
        times_s=np.arange(len(frames), dtype=float),
        size=map_size(rgb if depth is None else depth),
        rgb=rgb,
        depth=depth,
        intrinsics=model.intrinsics[order],
        c2w=model.c2w[order],
        scale_kind="scale",
        depth_source="as given",
        pose_source="structure from motion",
        files=(*frames, *depth_files),
        notes=tuple(notes),
    )


READER = Reader(
    name="colmap",
    title="a COLMAP folder",
    url="https://colmap.github.io",
    layout="images/ and sparse/0/{cameras,images,points3D}.bin or .txt; optional depth/<picture>.npz|npy|exr|png or "
    "stereo/depth_maps/<picture>.geometric.bin.",
    find=_find,
    load=_load,
)
