"""Bonn RGB-D Dynamic: recordings in TUM format with their own camera."""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Recording, Sequence, missing
from geo4d.datasets.pieces import (
    associate_nearest,
    constant_intrinsics,
    map_frames,
    map_size,
    png_depth,
    rgb_frames,
)
from geo4d.datasets.readers.tum import MAX_DIFFERENCE_S, load_recording, record_list
from geo4d.formats.cameras import load_tum
from geo4d.geometry.distortion import Distortion

INTRINSICS = (542.822841, 542.576870, 315.593520, 237.756098)
DISTORTION = Distortion("radial-tangential", (0.039903, -0.099343, -0.000730, -0.000144, 0.0))
"""k1 k2 p1 p2 k3, as the data set's page lists them; ground truth is read without them."""
VIDEO_SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
"""The five of the video depth evaluation of DepthCrafter and Geo4D; ``load_video`` picks the frames."""
VIDEO_FRAMES = slice(30, 140)
"""Of the sorted files in rgb/, and of those in depth/."""
_PREFIX = "rgbd_bonn_"


def _find(root: Path) -> dict[str, Path]:
    def is_recording(path: Path) -> bool:
        return (
            path.name.startswith(_PREFIX)
            and (path / "rgb.txt").is_file()
            and (path / "groundtruth.txt").is_file()
        )

    if is_recording(root):
        return {root.name.removeprefix(_PREFIX): root}
    for base in (root, root / "rgbd_bonn_dataset"):
        found = sorted(base.glob(_PREFIX + "*"))
        if found:
            return {path.name.removeprefix(_PREFIX): path for path in found if is_recording(path)}
    return {}


def _load(folder: Path, name: str) -> Sequence:
    return load_recording(folder, name, READER, INTRINSICS)


def load_video(folder: Path, name: str) -> Sequence:
    """The frames of the video depth evaluation: files 30 to 139 of rgb/ with files 30 to 139 of depth/, both by name.

    No stamps are compared, so a picture may stand beside depth of a neighbouring instant; the released numbers do.

    Raises:
        InputError: a folder holds fewer files.
    Source: datasets_preprocess/prepare_bonn.py of Geo4D.
    """
    # By text, not by number: a stamp may be written with fewer digits than its neighbours'.
    pictures, maps = (sorted((folder / kind).glob("*.png"))[VIDEO_FRAMES] for kind in ("rgb", "depth"))
    count = len(range(*VIDEO_FRAMES.indices(VIDEO_FRAMES.stop)))
    if len(pictures) < count or len(maps) < count:
        raise missing(
            READER,
            folder,
            f"{len(pictures)} pictures and {len(maps)} depth maps from file 30 on, {count} needed",
        )
    depth = map_frames(maps, png_depth(5000.0))
    times_s = np.array([float(path.stem) for path in pictures])
    pose_times, poses = load_tum(folder / "groundtruth.txt")
    nearest = associate_nearest(times_s, pose_times, MAX_DIFFERENCE_S)
    return Sequence(
        name=name,
        dataset=READER.name,
        times_s=times_s,
        size=map_size(depth),
        rgb=rgb_frames(pictures),
        depth=depth,
        intrinsics=constant_intrinsics(count, *INTRINSICS, integer_centres=True),
        c2w=np.where((nearest >= 0)[:, None, None], poses[nearest], np.nan),
        depth_source="structured-light sensor",
        pose_source="motion capture",
        files=(*pictures, *maps, folder / "groundtruth.txt"),
        notes=(
            "pictures and depth maps by position in their folders, as the released preparation pairs them",
        ),
    )


def _record(folder: Path, inside: Path) -> Recording | None:
    if not folder.name.startswith(_PREFIX):
        return None
    about = "whose pictures are a little distorted"
    return record_list(folder, READER.title, INTRINSICS, about, DISTORTION)


READER = Reader(
    name="bonn",
    title="Bonn RGB-D Dynamic",
    url="https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset",
    layout="rgbd_bonn_<name>/rgb.txt, depth.txt, groundtruth.txt, rgb/*.png, depth/*.png (uint16, value / 5000 = m).",
    find=_find,
    load=_load,
    record=_record,
)
