"""7-Scenes: hand-held Kinect of the first kind, colour and depth of one number in one folder."""

import re
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Recording, Sequence, missing
from geo4d.datasets.pieces import constant_intrinsics, map_frames, map_size, rgb_frames
from geo4d.errors import InputError
from geo4d.formats.images import load_png16

FPS = 30.0
SIZE = (480, 640)
INTRINSICS = (585.0, 585.0, 320.0, 240.0)
"""fx, fy, cx, cy that the data set's page gives: KinectFusion's default for the depth camera. The colour camera is not
calibrated; 320, 240 is the middle of the picture, so it is kept as that in our pixels."""
NO_DEPTH = (0, 65535)

_COLOUR = re.compile(r"frame-(\d{6})\.color\.png")


def _is_sequence(path: Path) -> bool:
    return next(path.glob("frame-[0-9]*.color.png"), None) is not None


def _find(root: Path) -> dict[str, Path]:
    if _is_sequence(root):
        return {root.name: root}
    for pattern in ("seq-[0-9]*", "*/seq-[0-9]*"):
        found = [path for path in sorted(root.glob(pattern)) if path.is_dir() and _is_sequence(path)]
        if found:
            return {path.relative_to(root).as_posix(): path for path in found}
    return {}


def _colour_files(folder: Path) -> tuple[list[Path], np.ndarray]:
    """The colour pictures by number, and the numbers."""
    numbered = sorted(
        (int(match[1]), path) for path in folder.iterdir() if (match := _COLOUR.fullmatch(path.name))
    )
    return [path for _, path in numbered], np.array([number for number, _ in numbered])


def _record(folder: Path, inside: Path) -> Recording | None:
    if not _is_sequence(folder):
        return None
    files, numbers = _colour_files(folder)
    if not files:
        return None
    notes = [
        f"recognised as 7-Scenes: {len(files)} colour pictures; depth and poses are left out",
        f"times are the pictures' numbers at {FPS:g} Hz",
    ]
    about = "the page's numbers are those of the depth camera; the colour camera was not calibrated"
    return Recording("7-Scenes", tuple(files), numbers / FPS, INTRINSICS, SIZE, about, tuple(notes))


def load_depth(path: Path) -> np.ndarray:
    """[H, W] z-depth in metres, NaN where the sensor saw nothing."""
    raw = load_png16(path)
    return np.where(np.isin(raw, NO_DEPTH), np.nan, raw / 1000).astype(np.float32)


def _load(folder: Path, name: str) -> Sequence:
    frames, numbers = _colour_files(folder)
    depth_files = [folder / f"frame-{number:06d}.depth.png" for number in numbers]
    pose_files = [folder / f"frame-{number:06d}.pose.txt" for number in numbers]
    absent = [path for path in (*depth_files, *pose_files) if not path.is_file()]
    if absent:
        raise missing(READER, folder, f"{absent[0].name} is not there")
    try:
        c2w = np.stack([np.loadtxt(path, encoding="utf-8").reshape(4, 4) for path in pose_files])
    except ValueError as error:
        raise InputError(f"expected 4 x 4 numbers in every pose file of {folder}: {error}") from error
    rgb, depth = rgb_frames(frames), map_frames(depth_files, load_depth)
    size = map_size(depth)
    return Sequence(
        name=name,
        dataset="7scenes",
        times_s=numbers / FPS,
        size=size,
        rgb=rgb,
        depth=depth,
        intrinsics=constant_intrinsics(len(frames), *INTRINSICS, integer_centres=False)
        if size == SIZE
        else None,
        c2w=np.where(np.isfinite(c2w).all(axis=(1, 2), keepdims=True), c2w, np.nan),
        depth_source="structured-light sensor",
        pose_source="KinectFusion",
        files=(*frames, *depth_files, *pose_files),
        notes=(
            "depth is not registered to colour (another camera a few centimetres beside it); intrinsics are the depth "
            "camera's default, as the data set's page gives them",
        ),
    )


READER = Reader(
    name="7scenes",
    title="RGB-D 7-Scenes",
    url="https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/ (non-commercial licence)",
    layout="<scene>/seq-NN/frame-NNNNNN.color.png, .depth.png (uint16, mm, 65535 is missing), .pose.txt (4x4 c2w).",
    find=_find,
    load=_load,
    record=_record,
)
