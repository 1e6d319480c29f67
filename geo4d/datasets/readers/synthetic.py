"""The simple folder layout: our own procedural clips, and anything that a user writes in the same way.

``rgb/*.png`` (may be left out where ``clip.json`` and depth are there: the pictures are then those of a video),
``depth/*.npz`` (key ``depth``; or .npy, .exr with channel Z, 16-bit .png in millimetres), optional
``dynamic/*.png`` (not 0 moves), ``intrinsics.txt`` (rows fx fy cx cy, one or one per frame, centres at +0.5) and
``poses.txt`` (TUM rows, ``c2w``); ``clip.json`` may hold facts about the clip.
"""

import json
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import list_files, map_frames, map_size, png_depth, rgb_frames, same_stems
from geo4d.errors import InputError
from geo4d.formats.arrays import load_npy, load_npz, npz_shapes
from geo4d.formats.cameras import load_tum
from geo4d.formats.images import load_exr, load_image
from geo4d.types import FrameArray

DEPTH_SUFFIXES = (".npz", ".npy", ".exr", ".png")


def load_depth_file(path: Path) -> np.ndarray:
    """Depth of one frame from npz (key ``depth``), npy, EXR (channel Z or Y) or 16-bit PNG (mm).

    Raises:
        InputError: damaged, or the expected array is not there.
    """
    if path.suffix == ".png":
        return png_depth(1000.0)(path)
    if path.suffix == ".exr":
        channels = load_exr(path)
        for name in ("Z", "Y", "R"):
            if name in channels:
                return channels[name].astype(np.float32)
        raise InputError(f"expected a channel Z in {path}, got {', '.join(channels)}")
    return load_array(path, "depth")


def load_array(path: Path, key: str) -> np.ndarray:
    """float32 array of an .npy, or of an .npz under ``key``.

    Raises:
        InputError: damaged, or the key is not there.
    """
    if path.suffix == ".npz":
        arrays = load_npz(path, {key})
        if key not in arrays:
            raise InputError(f"expected an array {key!r} in {path}, got {', '.join(npz_shapes(path))}")
        return np.asarray(arrays[key], np.float32)
    try:
        return np.asarray(load_npy(path), np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"expected an array in {path}, got: {error}; the file may be truncated") from error


def load_intrinsics(path: Path, num_frames: int) -> np.ndarray:
    """[T, 3, 3] from rows fx fy cx cy, one for all frames or one per frame.

    Raises:
        InputError: not numbers, or another number of rows.
    """
    try:
        rows = np.loadtxt(path, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise InputError(f"expected rows 'fx fy cx cy' in {path}, got: {error}") from error
    if rows.shape[1] != 4 or rows.shape[0] not in (1, num_frames):
        raise InputError(f"expected 1 or {num_frames} rows 'fx fy cx cy' in {path}, got {list(rows.shape)}")
    matrices = np.tile(np.eye(3), (num_frames, 1, 1))
    matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2] = rows.T
    return matrices


def _is_clip(folder: Path) -> bool:
    if (folder / "rgb.txt").is_file() or (folder / "test_annotations.json").is_file():
        return False
    described = (folder / "clip.json").is_file()
    has_depth = (folder / "depth").is_dir()
    if (folder / "rgb").is_dir():
        return described or has_depth or (folder / "poses.txt").is_file()
    return described and has_depth


def _find(root: Path) -> dict[str, Path]:
    if _is_clip(root):
        return {root.name: root}
    return {
        path.name: path for path in sorted(root.iterdir()) if path.is_dir() and (path / "clip.json").is_file()
    }


def _size(depth: FrameArray | None, rgb: FrameArray | None, folder: Path) -> tuple[int, int]:
    maps = depth if depth is not None else rgb
    if maps is None:
        raise missing(READER, folder, "neither pictures nor depth")
    return map_size(maps)


def _load(folder: Path, name: str) -> Sequence:
    pictures = list_files(folder / "rgb")
    frames = pictures or list_files(folder / "depth", DEPTH_SUFFIXES)
    if not frames:
        raise missing(READER, folder, "no frames in rgb/ or depth/")
    facts = (
        json.loads((folder / "clip.json").read_text(encoding="utf-8"))
        if (folder / "clip.json").is_file()
        else {}
    )
    depth_files = list_files(folder / "depth", DEPTH_SUFFIXES)
    depth = None
    if depth_files:
        depth_files = same_stems(frames, depth_files, READER, folder, "depth maps")
        depth = map_frames(depth_files, load_depth_file)
    dynamic_files = list_files(folder / "dynamic")
    dynamic = None
    if dynamic_files:
        dynamic_files = same_stems(frames, dynamic_files, READER, folder, "dynamic masks")
        dynamic = map_frames(dynamic_files, lambda path: load_image(path)[..., 0] > 0, bool)
    rgb = rgb_frames(pictures) if pictures else None
    times = np.arange(len(frames)) / float(facts.get("fps", 1.0))
    c2w = None
    if (folder / "poses.txt").is_file():
        times, c2w = load_tum(folder / "poses.txt")
        if len(c2w) != len(frames):
            raise missing(READER, folder, f"{len(frames)} frames but {len(c2w)} rows in poses.txt")
    intrinsics = None
    if (folder / "intrinsics.txt").is_file():
        intrinsics = load_intrinsics(folder / "intrinsics.txt", len(frames))
    texts = [folder / text for text in ("clip.json", "poses.txt", "intrinsics.txt")]
    return Sequence(
        name=name,
        dataset="folder",
        times_s=times,
        size=_size(depth, rgb, folder),
        rgb=rgb,
        depth=depth,
        intrinsics=intrinsics,
        c2w=c2w,
        dynamic=dynamic,
        scale_kind="metric",
        depth_source="rendered" if facts else "as given",
        pose_source="rendered" if facts else "as given",
        files=(*pictures, *depth_files, *dynamic_files, *(text for text in texts if text.is_file())),
    )


READER = Reader(
    name="folder",
    title="a folder in the simple layout",
    url="geo4d.synthetic.storage.save_clip writes one; or write your own",
    layout="rgb/*.png (or clip.json alone), depth/*.npz|npy|exr|png, optional dynamic/*.png, "
    "intrinsics.txt (fx fy cx cy), poses.txt (TUM).",
    find=_find,
    load=_load,
)
