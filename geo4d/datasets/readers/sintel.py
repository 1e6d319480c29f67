"""MPI Sintel, training split: rendered frames, .dpt depth, .cam cameras; final or clean pass."""

from functools import partial
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import list_files, map_frames, map_size, rgb_frames, same_stems
from geo4d.formats.cameras import load_cam
from geo4d.formats.images import load_dpt, load_image

FPS = 24.0
URL = "http://sintel.is.tue.mpg.de (training images and the depth and camera extension)"
LAYOUT = (
    "training/final|clean/<scene>/frame_NNNN.png, training/depth/<scene>/frame_NNNN.dpt, "
    "training/camdata_left/<scene>/frame_NNNN.cam; optional training/dynamic_label_perfect/<scene>/*.png."
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
    depth = intrinsics = c2w = dynamic = None
    if depth_files:
        depth_files = same_stems(frames, depth_files, reader, folder, "depth maps")
        depth = map_frames(depth_files, _depth)
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
        files=(*frames, *depth_files, *cam_files, *mask_files),
        notes=() if mask_files else ("no masks of moving things in the folder",),
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
