"""The reader ``numpy-clip``: arrays ``rgb`` [T, H, W, 3] uint8, ``depth`` [T, H, W] in metres, ``intrinsics`` [3, 3]."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence

NAMES = ("rgb", "depth", "intrinsics")
FPS = 24.0


def _find(root: Path) -> dict[str, Path]:
    """Sequences by name: the folder itself, or those in it; empty where the layout is another one."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return {path.name: path for path in folders if all((path / f"{n}.npy").is_file() for n in NAMES)}


def _load(folder: Path, name: str) -> Sequence:
    """Maps are read when sliced: a memory map does that. Unknown depth is NaN, sky is +inf; 0 says unknown here."""
    rgb, depth, intrinsics = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in NAMES)
    return Sequence(
        name=name,
        dataset=READER.name,
        times_s=np.arange(len(depth)) / FPS,
        size=(depth.shape[1], depth.shape[2]),
        rgb=np.asarray(rgb, np.float32) / 255,
        depth=np.where(np.asarray(depth) > 0, np.asarray(depth, np.float32), np.nan),
        intrinsics=np.tile(np.asarray(intrinsics, float), (len(depth), 1, 1)),
        depth_source="as stored",
        files=tuple(folder / f"{n}.npy" for n in NAMES),
    )


READER = Reader(
    name="numpy-clip",
    title="clips as numpy arrays",
    url="your own disk",
    layout="rgb.npy [T, H, W, 3] uint8, depth.npy [T, H, W], metres, 0 where unknown, and intrinsics.npy [3, 3].",
    find=_find,
    load=_load,
)
