"""MPI Sintel, training split: rendered frames, .dpt depth, .cam cameras; final or clean pass.

``training/mask/<scene>/frame_NNNN.png``, where it is there, marks the sky (grey above 127): GeometryCrafter's released
preparation, which takes the clean pass, leaves these pixels out. So the clean pass has infinite depth there. Geo4D scores
the final pass as it is.

Source: evaluation/preprocess/gen_sintel_video.py of TencentARC/GeometryCrafter.
"""

import logging
from functools import partial
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import list_files, map_frames, map_size, rgb_frames, same_stems
from geo4d.errors import InputError
from geo4d.formats.cameras import load_cam
from geo4d.formats.images import load_dpt, load_image
from geo4d.types import FrameArray, LazyFrames

log = logging.getLogger(__name__)

FPS = 24.0
URL = "http://sintel.is.tue.mpg.de (training images and the depth and camera extension)"
LAYOUT = (
    "training/final|clean/<scene>/frame_NNNN.png, training/depth/<scene>/frame_NNNN.dpt, "
    "training/camdata_left/<scene>/frame_NNNN.cam; optional training/dynamic_label_perfect/<scene>/*.png and, for the "
    "clean pass, training/mask/<scene>/frame_NNNN.png (the sky)."
)
POSE_SEQUENCES = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2",
    "market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
"""The 14 sequences on which poses are scored: the camera moves enough (the list of ParticleSfM, used by Geo4D)."""


def _find(root: Path, render_pass: str) -> dict[str, Path]:
    for base in (root, root / "training"):
        folder = base / render_pass
        if folder.is_dir() and ((base / "depth").is_dir() or (base / "camdata_left").is_dir()):
            return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    return {}


def _depth(path: Path) -> np.ndarray:
    depth = load_dpt(path)
    return np.where(depth > 0, depth, np.nan).astype(np.float32)


def _without_sky(depth: FrameArray, files: list[Path]) -> LazyFrames:
    def compute(t: int) -> np.ndarray:
        marked = load_image(files[t])[..., 0] > 127 / 255
        if marked.shape != tuple(depth.shape[1:3]):
            raise InputError(
                f"expected a mask of {tuple(depth.shape[1:3])}, got {marked.shape} in {files[t]}"
            )
        return np.where(marked, np.inf, np.asarray(depth[t]))

    return LazyFrames(tuple(depth.shape), np.dtype(np.float32), compute)


def _load(folder: Path, name: str, render_pass: str) -> Sequence:
    reader = FINAL if render_pass == "final" else CLEAN
    base = folder.parent.parent
    frames = list_files(folder)
    if not frames:
        raise missing(reader, folder, "no frames")
    depth_files = list_files(base / "depth" / name, (".dpt",))
    cam_files = list_files(base / "camdata_left" / name, (".cam",))
    if not depth_files and not cam_files:
        raise missing(reader, base, f"neither depth/{name} nor camdata_left/{name}")
    depth: FrameArray | None = None
    intrinsics = c2w = dynamic = None
    notes = []
    if depth_files:
        depth_files = same_stems(frames, depth_files, reader, folder, "depth maps")
        depth = map_frames(depth_files, _depth)
    sky_files = list_files(base / "mask" / name) if render_pass == "clean" else []
    if depth is not None and sky_files:
        sky_files = same_stems(frames, sky_files, reader, folder, "sky masks in mask/")
        depth = _without_sky(depth, sky_files)
    elif depth is not None and render_pass == "clean":
        notes.append("no training/mask in the folder: the depth of the sky counts")
        log.warning("%s: no %s, so the sky counts as a surface", name, base / "mask" / name)
    if cam_files:
        cam_files = same_stems(frames, cam_files, reader, folder, "cameras")
        cameras = [load_cam(path) for path in cam_files]
        intrinsics = np.stack([camera[0] for camera in cameras])
        intrinsics[:, :2, 2] += 0.5  # from integer pixel centres
        c2w = np.stack([camera[1] for camera in cameras])
    mask_files = list_files(base / "dynamic_label_perfect" / name)
    if mask_files:
        mask_files = same_stems(frames, mask_files, reader, folder, "dynamic masks")
        dynamic = map_frames(mask_files, lambda path: load_image(path)[..., 0] > 0.5, bool)
    else:
        notes.append("no masks of moving things in the folder")
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset=reader.name,
        times_s=np.arange(len(frames)) / FPS,
        size=map_size(depth if depth is not None else rgb),
        rgb=rgb,
        depth=depth,
        intrinsics=intrinsics,
        c2w=c2w,
        dynamic=dynamic,
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, *cam_files, *mask_files, *sky_files),
        notes=tuple(notes),
    )


FINAL = Reader(
    name="sintel",
    title="MPI Sintel (final pass)",
    url=URL,
    layout=LAYOUT,
    find=partial(_find, render_pass="final"),
    load=partial(_load, render_pass="final"),
)
CLEAN = Reader(
    name="sintel-clean",
    title="MPI Sintel (clean pass)",
    url=URL,
    layout=LAYOUT,
    find=partial(_find, render_pass="clean"),
    load=partial(_load, render_pass="clean"),
)
