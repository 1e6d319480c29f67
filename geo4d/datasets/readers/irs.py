"""IRS: rendered rooms, shops and offices as stereo pairs; the left camera with depth from disparity.

Get it from https://github.com/HKBU-HPML/IRS (no licence is stated there).

- Depth: ``480 * 0.1 m / disparity`` (EXR of one channel). Disparity of 0 and depth beyond 200 m is unknown (NaN), as
  CUT3R treats it; nothing marks the sky (rooms, some with windows).
- Cameras: focal length 480 px at 960 x 540 (the authors' loader), principal point in the middle (CUT3R). Poses are not
  published.
- Times: nominal.

Source: dataloader/SIRSLoader.py of HKBU-HPML/IRS (focal length, size); names, baseline and folders, CUT3R
(preprocess_irs.py, datasets/irs.py).
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    exr_map,
    known_depth,
    list_files,
    map_frames,
    map_size,
    nominal_times,
    rgb_frames,
    same_stems,
)
from geo4d.errors import InputError

FOCAL, SIZE, BASELINE, FAR = 480.0, (540, 960), 0.1, 200.0


def _find(root: Path) -> dict[str, Path]:
    def is_sequence(path: Path) -> bool:
        return next(path.glob("l_*.png"), None) is not None

    if is_sequence(root):
        return {root.name: root}
    found: dict[str, Path] = {}
    for pattern in ("*", "*/*", "*/*/*"):
        for path in sorted(root.glob(pattern)):
            if path.is_dir() and is_sequence(path):
                found[path.relative_to(root).as_posix()] = path
    return found


def _load(folder: Path, name: str) -> Sequence:
    frames = [path for path in list_files(folder, (".png",)) if path.name.startswith("l_")]
    disparity_files = [path for path in list_files(folder, (".exr",)) if path.name.startswith("d_")]
    if not disparity_files:
        raise missing(READER, folder, f"{len(frames)} pictures l_*.png, no disparity d_*.exr")
    disparity_files = same_stems(frames, disparity_files, READER, folder, "disparity maps d_*.exr")

    def depth(path: Path) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return known_depth(FOCAL * BASELINE / exr_map(path, "R", "G", "Y"), known_to=FAR)

    maps = map_frames(disparity_files, depth)
    size = map_size(maps)
    if size != SIZE:
        raise InputError(
            f"expected maps of {SIZE}, to which the focal length belongs, got {size} in {folder}"
        )
    times_s, note = nominal_times(len(frames))
    return Sequence(
        name=name,
        dataset="irs",
        times_s=times_s,
        size=size,
        rgb=rgb_frames(frames),
        depth=maps,
        intrinsics=constant_intrinsics(
            len(frames), FOCAL, FOCAL, size[1] / 2, size[0] / 2, integer_centres=False
        ),
        depth_source="rendered disparity",
        files=(*frames, *disparity_files),
        notes=(note,),
    )


READER = Reader(
    name="irs",
    title="IRS",
    url="https://github.com/HKBU-HPML/IRS (no licence stated)",
    layout="Home|Office|Restaurant|Store/<scene>/l_N.png, d_N.exr (disparity).",
    find=_find,
    load=_load,
)
