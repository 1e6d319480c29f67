"""TUM RGB-D, and any recording in its format: rgb.txt, depth.txt, groundtruth.txt, depth PNG / 5000."""

import re
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Recording, Sequence, missing
from geo4d.datasets.pieces import (
    associate_nearest,
    associate_pairs,
    constant_intrinsics,
    map_frames,
    map_size,
    png_depth,
    present,
    rgb_frames,
)
from geo4d.datasets.readers.synthetic import load_intrinsics
from geo4d.errors import InputError
from geo4d.formats.cameras import load_tum
from geo4d.formats.times import load_frame_times
from geo4d.geometry.distortion import Distortion

DYNAMIC_SEQUENCES = tuple(
    f"rgbd_dataset_freiburg3_{who}_{how}"
    for who in ("sitting", "walking")
    for how in ("halfsphere", "rpy", "static", "xyz")
)
"""The dynamic set of the pose evaluation; ``load_dynamic`` picks the frames."""
DYNAMIC_FRAMES = slice(0, 270, 3)
"""Of the pictures that have a pose: every third, up to 90."""

INTRINSICS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy in the colour camera, as the benchmark's page lists them."""
DISTORTION = {
    "freiburg1": Distortion("radial-tangential", (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": Distortion("radial-tangential", (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
}
"""k1 k2 p1 p2 k3, from the same page; ground truth is read without them."""
SIZE = (480, 640)
"""(height, width) of the pictures of all these cameras."""
UNDISTORTED = ("freiburg3",)
ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)
MAX_DIFFERENCE_S = 0.02


def load_file_list(path: Path) -> tuple[np.ndarray, list[str]]:
    """Stamps and file names of rgb.txt or depth.txt.

    Raises:
        InputError: a row is not 'stamp name'.
    """
    listed = load_frame_times(path)
    if listed.names is None:
        raise InputError(f"expected lines of 'stamp file' in {path}, got stamps only")
    return listed.times_s, list(listed.names)


def existing(folder: Path, stamps: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[Path]]:
    """The entries whose files are there, in order of time."""
    rows = sorted(
        (stamp, folder / name) for stamp, name in zip(stamps, names, strict=True) if (folder / name).is_file()
    )
    return np.array([row[0] for row in rows]), [row[1] for row in rows]


def _find(root: Path) -> dict[str, Path]:
    def is_recording(path: Path) -> bool:
        return (path / "rgb.txt").is_file() and (path / "groundtruth.txt").is_file()

    if is_recording(root):
        return {root.name: root}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and is_recording(path)}


def camera_of(folder: Path) -> str | None:
    """The freiburg camera that a folder is named after."""
    name = re.sub(r"fr(?=\d)", "freiburg", folder.name)
    return next((camera for camera in INTRINSICS if camera in name), None)


def record_list(
    folder: Path,
    title: str,
    intrinsics: tuple[float, float, float, float] | None,
    camera: str,
    distortion: Distortion | None = None,
) -> Recording | None:
    """The pictures of rgb.txt.

    Args:
        intrinsics: fx, fy, cx, cy, centres counted as integers.
        camera: what is to be known of it.
        distortion: of the pictures.
    """
    if not (folder / "rgb.txt").is_file():
        return None
    listed = load_frame_times(folder / "rgb.txt")
    times_s, files, absent = present(folder, listed.times_s, listed.names or ())
    if listed.names is None or not files:
        return None
    notes = [f"recognised as {title}: {len(files)} pictures and their times from rgb.txt"]
    if absent:
        notes.append(f"{absent} of {len(listed.times_s)} pictures of rgb.txt are not in the folder")
    if intrinsics is not None:
        intrinsics = (intrinsics[0], intrinsics[1], intrinsics[2] + 0.5, intrinsics[3] + 0.5)
    return Recording(title, tuple(files), times_s, intrinsics, SIZE, camera, tuple(notes), distortion)


def _intrinsics(
    folder: Path, num_frames: int, given: tuple[float, float, float, float] | None, notes: list[str]
) -> np.ndarray:
    """[T, 3, 3]: ``intrinsics.txt`` in the folder, else those given, the named camera's, or the ROS default."""
    if (folder / "intrinsics.txt").is_file():
        return load_intrinsics(folder / "intrinsics.txt", num_frames)
    known = given or INTRINSICS.get(camera_of(folder) or "")
    if known is None:
        notes.append(
            "the camera is not named in the folder; intrinsics are the ROS default 525 (give them in intrinsics.txt)"
        )
    return constant_intrinsics(num_frames, *(known or ROS_DEFAULT), integer_centres=True)


def load_recording(
    folder: Path, name: str, reader: Reader, intrinsics: tuple[float, float, float, float] | None = None
) -> Sequence:
    """A recording in TUM format. Entries without a file are left out; so are frames without depth, where there is any.

    Args:
        intrinsics: fx, fy, cx, cy, pixel centres counted as integers; None takes those of the freiburg camera named in
            the folder, else the ROS default. ``intrinsics.txt`` in the folder (fx fy cx cy, centres at +0.5) wins.
    """
    notes = []
    stamps, names = load_file_list(folder / "rgb.txt")
    times, frames = existing(folder, stamps, names)
    if not frames:
        raise missing(reader, folder, "none of the files in rgb.txt is there")
    if len(frames) < len(names):
        notes.append(f"{len(names) - len(frames)} of {len(names)} frames of rgb.txt are not in the folder")
    depth = None
    depth_files: list[Path] = []
    if (folder / "depth.txt").is_file():
        depth_times, depth_files = existing(folder, *load_file_list(folder / "depth.txt"))
        partner = associate_nearest(times, depth_times, MAX_DIFFERENCE_S)
        if (partner < 0).any() and (partner >= 0).any():
            notes.append(
                f"{(partner < 0).sum()} frames without depth within {MAX_DIFFERENCE_S} s are left out"
            )
        if (partner >= 0).any():
            kept = partner >= 0
            times, frames = times[kept], [frame for frame, keep in zip(frames, kept, strict=True) if keep]
            depth_files = [depth_files[index] for index in partner[kept]]
            depth = map_frames(depth_files, png_depth(5000.0))
    pose_times, poses = load_tum(folder / "groundtruth.txt")
    nearest = associate_nearest(times, pose_times, MAX_DIFFERENCE_S)
    c2w = np.where((nearest >= 0)[:, None, None], poses[nearest], np.nan)
    if (nearest < 0).any():
        notes.append(f"{(nearest < 0).sum()} frames have no pose within {MAX_DIFFERENCE_S} s")
    matrices = _intrinsics(folder, len(frames), intrinsics, notes)
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset=reader.name,
        times_s=times,
        size=map_size(depth if depth is not None else rgb),
        rgb=rgb,
        depth=depth,
        intrinsics=matrices,
        c2w=c2w,
        depth_source="structured-light sensor",
        pose_source="motion capture",
        files=(*frames, *depth_files, folder / "groundtruth.txt"),
        notes=tuple(notes),
    )


def _load(folder: Path, name: str) -> Sequence:
    return load_recording(folder, name, READER)


def load_dynamic(folder: Path, name: str) -> Sequence:
    """The frames of the pose evaluation: pictures and poses are paired, and of the pairs every third is taken, up to 90.

    Depth plays no part: a picture without it stays, and one without a pose is gone before the stride.

    Raises:
        InputError: a picture that is chosen is not in the folder, or none has a pose.
    Source: datasets_preprocess/prepare_tum.py of Geo4D.
    """
    stamps, names = load_file_list(folder / "rgb.txt")
    pose_times, poses = load_tum(folder / "groundtruth.txt")
    pairs = associate_pairs(stamps, pose_times, MAX_DIFFERENCE_S)[DYNAMIC_FRAMES]
    frames = [folder / names[i] for i, _ in pairs]
    absent = [path.name for path in frames if not path.is_file()]
    if absent or not frames:
        raise missing(
            READER,
            folder,
            f"{len(absent)} of the {len(frames)} pictures to score are not there, {absent[:1]}",
        )
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset=READER.name,
        times_s=stamps[[i for i, _ in pairs]],
        size=map_size(rgb),
        rgb=rgb,
        intrinsics=constant_intrinsics(
            len(frames), *(INTRINSICS.get(camera_of(folder) or "") or ROS_DEFAULT), integer_centres=True
        ),
        c2w=poses[[j for _, j in pairs]],
        pose_source="motion capture",
        files=(*frames, folder / "groundtruth.txt"),
        notes=(f"{len(frames)} of {len(names)} pictures, as the released preparation picks them",),
    )


def _record(folder: Path, inside: Path) -> Recording | None:
    camera = camera_of(folder)
    if camera is None:
        about = "no freiburg camera is named in the folder"
    elif camera in UNDISTORTED:
        about = f"{camera}, pictures without distortion"
    else:
        about = f"{camera}, whose pictures are distorted"
    distortion = DISTORTION.get(camera or "")
    return record_list(folder, "TUM RGB-D", INTRINSICS.get(camera or ""), about, distortion)


READER = Reader(
    name="tum",
    title="TUM RGB-D",
    url="https://cvg.cit.tum.de/data/datasets/rgbd-dataset (CC BY 4.0)",
    layout="<sequence>/rgb.txt, depth.txt, groundtruth.txt, rgb/*.png, depth/*.png (uint16, value / 5000 = m).",
    find=_find,
    load=_load,
    record=_record,
)
