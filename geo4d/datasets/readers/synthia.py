"""SYNTHIA video sequences: drives through a rendered city; four cameras of the left rig.

Get it from https://synthia-dataset.net (non-commercial).

- Depth: 16-bit PNG, z-depth in centimetres. From 640 m on it is taken for the sky (+inf): public preparations leave these
  pixels out; that they are the sky is our reading. 0 is missing.
- Cameras: ``CameraParams/intrinsics.txt``: focal length, then the principal point, in pixels, one number a line (532.74,
  640, 380 at 1280 x 760; half the size, so pixel centres lie at +0.5).
- Poses are not read: public code takes the 4x4 matrices of ``CameraParams`` in ways that contradict each other, and no
  file was at hand to decide.
- Times: nominal, 5 frames a second; not verified.

Source: MotionCrafter (gen_synthia_video.py) for folders, units and limits.
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    frame_numbers,
    known_depth,
    list_files,
    map_frames,
    map_size,
    rgb_frames,
    same_stems,
)
from geo4d.errors import InputError
from geo4d.formats.files import existing_file

FPS = 5.0
SKY = 640.0


def _find(root: Path) -> dict[str, Path]:
    bases = [root] if root.name.startswith("SYNTHIA-SEQS") else []
    for base in (root, root / "Synthia-Video-Sequence"):
        bases += sorted(path for path in base.glob("SYNTHIA-SEQS*") if path.is_dir())
    return {
        f"{base.name}/{camera.name}": camera
        for base in bases
        for camera in sorted((base / "RGB" / "Stereo_Left").glob("Omni_*"))
        if camera.is_dir()
    }


def _depth(path: Path) -> np.ndarray:
    import cv2

    data = np.fromfile(existing_file(path, "a 16-bit PNG"), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None or image.dtype != np.uint16:
        raise InputError(
            f"expected a PNG of 16 bits in {path}, got {'none' if image is None else image.dtype}"
        )
    if image.ndim == 3 and (image[..., :1] != image[..., :3]).any():
        raise InputError(f"expected equal channels of depth in {path}, got different ones")
    values = image if image.ndim == 2 else image[..., 0]
    return known_depth(values.astype(np.float32) / 100, sky_from=SKY)


def _load_camera(path: Path) -> tuple[float, float, float]:
    words = existing_file(path, "a camera file").read_text(encoding="utf-8").split()
    try:
        focal, cx, cy = (float(word) for word in words[:3])
    except ValueError as error:
        raise InputError(f"expected focal length, cx and cy in {path}, got {words[:3]}") from error
    return focal, cx, cy


def _load(folder: Path, name: str) -> Sequence:
    base = folder.parents[2]
    frames = list_files(folder)
    depth_files = list_files(base / "Depth" / "Stereo_Left" / folder.name)
    if not frames or not depth_files:
        raise missing(
            READER, base, f"{len(frames)} pictures and {len(depth_files)} depth maps of {folder.name}"
        )
    camera_file = base / "CameraParams" / "intrinsics.txt"
    if not camera_file.is_file():
        raise missing(READER, base, "no CameraParams/intrinsics.txt")
    depth_files = same_stems(
        frames, depth_files, READER, base, f"depth maps in Depth/Stereo_Left/{folder.name}"
    )
    focal, cx, cy = _load_camera(camera_file)
    depth = map_frames(depth_files, _depth)
    return Sequence(
        name=name,
        dataset="synthia",
        times_s=frame_numbers(frames) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=constant_intrinsics(len(frames), focal, focal, cx, cy, integer_centres=False),
        depth_source="rendered",
        files=(*frames, *depth_files, camera_file),
        notes=(
            "poses are not read: their convention was not verified",
            "times are nominal: 5 frames a second",
        ),
    )


READER = Reader(
    name="synthia",
    title="SYNTHIA video sequences",
    url="https://synthia-dataset.net (non-commercial)",
    layout="SYNTHIA-SEQS-NN-SEASON/RGB/Stereo_Left/Omni_F/NNNNNN.png, Depth/Stereo_Left/Omni_F/NNNNNN.png (uint16, cm), "
    "CameraParams/intrinsics.txt.",
    find=_find,
    load=_load,
)
