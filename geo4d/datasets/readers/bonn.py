"""Bonn RGB-D Dynamic: recordings in TUM format with their own camera."""

from pathlib import Path

from geo4d.datasets.base import Reader, Recording, Sequence
from geo4d.datasets.readers.tum import load_recording, record_list

INTRINSICS = (542.822841, 542.576870, 315.593520, 237.756098)
VIDEO_SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
"""The five of the video depth evaluation of DepthCrafter and Geo4D, frames 30 to 139."""
VIDEO_FRAMES = slice(30, 140)
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


def _record(folder: Path, inside: Path) -> Recording | None:
    if not folder.name.startswith(_PREFIX):
        return None
    about = "the pictures are a little distorted (radial-tangential), and only the pinhole part is used"
    return record_list(folder, READER.title, INTRINSICS, about)


READER = Reader(
    name="bonn",
    title="Bonn RGB-D Dynamic",
    url="https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset",
    layout="rgbd_bonn_<name>/rgb.txt, depth.txt, groundtruth.txt, rgb/*.png, depth/*.png (uint16, value / 5000 = m).",
    find=_find,
    load=_load,
    record=_record,
)
