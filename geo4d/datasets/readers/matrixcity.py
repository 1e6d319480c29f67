"""MatrixCity: a rendered city from the street and from the air.

Get it from https://huggingface.co/datasets/BoDai/MatrixCity (links and terms: https://github.com/city-super/MatrixCity).

- Depth: EXR, z-depth in centimetres, in a tree of its own beside the pictures' (``small_city_depth`` for ``small_city``,
  ``<block>_depth`` for ``<block>``). Values from 65,504 on (the largest half-precision number) are the sky (+inf), in the
  trees ``*_float32`` too; there, deeper surfaces would be finite numbers, but the smaller trees cannot tell.
- Cameras: ``transforms_origin.json`` (all pictures) or ``transforms.json`` (a choice): ``camera_angle_x`` in radians and
  for each ``frame_index`` ``rot_mat``, camera to world in OpenGL axes, whose rotation is 1 / 100 of one and whose
  position is in metres. Principal point in the middle.
- Pictures follow a grid of places and directions rather than a drive; times are nominal.

Source: README of city-super/MatrixCity (axes, units, the factor 100); folders and the largest value, MotionCrafter
(gen_matrix_city_video.py).
"""

from pathlib import Path
from typing import Any

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    centred_field_of_view,
    exr_map,
    known_depth,
    load_json,
    map_frames,
    map_size,
    nominal_times,
    rgb_frames,
)
from geo4d.errors import InputError

CITIES = ("small_city", "big_city")
SKY_VALUE = 65504.0
_TRANSFORMS = ("transforms_origin.json", "transforms.json")


def _find(root: Path) -> dict[str, Path]:
    def is_block(path: Path) -> bool:
        return any((path / name).is_file() for name in _TRANSFORMS)

    bases = [root / city for city in CITIES if (root / city).is_dir()] or (
        [root] if root.name in CITIES else []
    )
    return {
        f"{base.name}/{path.relative_to(base).as_posix()}": path
        for base in bases
        for pattern in ("aerial/train*/*", "street/train*/*")
        for path in sorted(base.glob(pattern))
        if path.is_dir() and is_block(path)
    }


def _depth_folder(block: Path) -> Path | None:
    city = next(parent for parent in block.parents if parent.name in CITIES)
    inner = block.relative_to(city)
    for tree in (f"{city.name}_depth_float32", f"{city.name}_depth"):
        folder = city.parent / tree / inner.parent / f"{inner.name}_depth"
        if folder.is_dir():
            return folder
    return None


def _cameras(path: Path) -> tuple[float, dict[int, np.ndarray]]:
    """Horizontal field of view in radians, and [4, 4] of each picture as it is stored.

    Raises:
        InputError: not the cameras of the data set, or of another unit.
    """
    facts: Any = load_json(path)
    try:
        angle = float(facts["camera_angle_x"])
        stored = {int(frame["frame_index"]): np.array(frame["rot_mat"], float) for frame in facts["frames"]}
        sizes = np.array([np.linalg.norm(matrix[:3, 0]) for matrix in stored.values()])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"expected camera_angle_x and frames with frame_index and rot_mat in {path}: {error!r}"
        ) from error
    if not np.allclose(sizes, 0.01, rtol=0.02):
        raise InputError(
            f"expected rotations of 1 / 100 in {path}, got a factor of {np.median(sizes):.4g}; the files in pose/ have "
            "another unit, use those beside the pictures"
        )
    return angle, stored


def _load(folder: Path, name: str) -> Sequence:
    import torch

    from geo4d.geometry.poses import opengl_to_opencv

    file = next(folder / name for name in _TRANSFORMS if (folder / name).is_file())
    angle, stored = _cameras(file)
    depth_folder = _depth_folder(folder)
    if depth_folder is None:
        raise missing(
            READER, folder.parent, f"no depth of {folder.name} (<city>_depth/.../{folder.name}_depth)"
        )
    files: dict[int, tuple[Path, Path]] = {}
    pictures = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdecimal()}
    maps = {int(path.stem): path for path in depth_folder.glob("*.exr") if path.stem.isdecimal()}
    for number in sorted(stored):
        if number not in pictures or number not in maps:
            what = "picture" if number not in pictures else "depth map"
            raise missing(READER, folder, f"{file.name} lists frame {number}, but its {what} is not there")
        files[number] = (pictures[number], maps[number])
    depth_files = [pair[1] for pair in files.values()]
    depth = map_frames(
        depth_files, lambda path: known_depth(exr_map(path, "R", "Y", "Z") / 100, sky_from=SKY_VALUE / 100)
    )
    c2w = np.stack([stored[number] for number in files])
    c2w[:, :3, :3] *= 100
    c2w[:, 3] = [0, 0, 0, 1]
    times_s, note = nominal_times(len(files))
    return Sequence(
        name=name,
        dataset="matrixcity",
        times_s=times_s,
        size=map_size(depth),
        rgb=rgb_frames([pair[0] for pair in files.values()]),
        depth=depth,
        intrinsics=centred_field_of_view(len(files), angle, map_size(depth)),
        c2w=opengl_to_opencv(torch.from_numpy(c2w)).numpy(),
        depth_source="rendered",
        pose_source="rendered",
        files=(*(path for pair in files.values() for path in pair), file),
        notes=(note, "pictures follow a grid of places and directions"),
    )


READER = Reader(
    name="matrixcity",
    title="MatrixCity",
    url="https://github.com/city-super/MatrixCity (links and terms of use)",
    layout="small_city|big_city/aerial|street/train*/<block>/NNNN.png, transforms_origin.json or transforms.json, and "
    "small_city_depth|big_city_depth/aerial|street/train*/<block>_depth/NNNN.exr (cm).",
    find=_find,
    load=_load,
)
