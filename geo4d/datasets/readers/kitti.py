"""KITTI: annotated depth of drives (three layouts that papers use) and the odometry benchmark."""

import json
import re
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Recording, Sequence, missing
from geo4d.datasets.pieces import (
    choose_camera,
    constant_intrinsics,
    list_files,
    map_frames,
    map_size,
    png_depth,
    rgb_frames,
    same_stems,
)
from geo4d.errors import InputError
from geo4d.formats.cameras import load_kitti_poses
from geo4d.formats.times import load_frame_times

FPS = 10.0
VIDEO_FRAMES = slice(0, 110)
"""Both papers use the first 110 frames of every drive of the validation split."""
_DEPTH_URL = (
    "https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction (CC BY-NC-SA 3.0)"
)
_GATHERED = ("image_gathered", "groundtruth_depth_gathered")
_SELECTION_NAME = re.compile(
    r"(\d{4}_\d\d_\d\d_drive_\d{4}_sync)_(?:image|groundtruth_depth)_(\d{10})_image_0([23])"
)


def _depth_root(root: Path) -> Path:
    for base in (root / "depth_selection" / "val_selection_cropped", root / "val_selection_cropped", root):
        if (base / _GATHERED[0]).is_dir() or (base / "groundtruth_depth").is_dir():
            return base
    return root


def _find_depth(root: Path) -> dict[str, Path]:
    if (root / "test_annotations.json").is_file():
        return {root.name: root}
    annotated = root / "data_depth_annotated" / "val"
    if annotated.is_dir():
        return {path.name: path for path in sorted(annotated.iterdir()) if (path / "proj_depth").is_dir()}
    base = _depth_root(root)
    if (base / _GATHERED[0]).is_dir():
        return {path.name: path for path in sorted((base / _GATHERED[0]).iterdir()) if path.is_dir()}
    if (base / "groundtruth_depth").is_dir():
        drives = {
            match[1] for path in (base / "image").glob("*.png") if (match := _SELECTION_NAME.match(path.stem))
        }
        return dict.fromkeys(sorted(drives), base / "image")
    return {}


def _load_depth(path: Path, name: str) -> Sequence:
    if (path / "test_annotations.json").is_file():
        return _load_annotated_list(path, name)
    if path.parent.name == _GATHERED[0]:
        frames = list_files(path)
        depth_files = list_files(path.parent.parent / _GATHERED[1] / path.name)
        return _drive(frames, depth_files, name, path, None)
    if (path / "proj_depth").is_dir():
        return _load_raw_drive(path, name)
    return _load_selection(path, name)


def _load_annotated_list(folder: Path, name: str) -> Sequence:
    """rgb/, depth/ and a json list with intrinsics; frames in order of their number (they need not be neighbours)."""
    try:
        entries = json.loads((folder / "test_annotations.json").read_text(encoding="utf-8"))["files"]
        entries = sorted(entries, key=lambda entry: Path(entry["rgb"]).name)
        # The listed paths begin with folders of another repository; names are unique here.
        frames = [folder / "rgb" / Path(entry["rgb"]).name for entry in entries]
        depth_files = [folder / "depth" / Path(entry["depth"]).name for entry in entries]
        cameras = [entry["cam_in"] for entry in entries]
        scale = float(entries[0]["depth_scale"])
    except (KeyError, IndexError, json.JSONDecodeError) as error:
        raise InputError(
            f"expected a list of files in {folder}/test_annotations.json, got: {error!r}"
        ) from error
    absent = [path for path in (*frames, *depth_files) if not path.is_file()]
    if absent:
        raise missing(DEPTH, folder, f"{len(absent)} listed files are not there, first {absent[0].name}")
    intrinsics = np.concatenate([constant_intrinsics(1, *camera, integer_centres=True) for camera in cameras])
    sequence = _drive(frames, depth_files, name, folder, intrinsics, scale)
    return sequence


def _load_raw_drive(folder: Path, name: str) -> Sequence:
    """data_depth_annotated/val/<drive> beside raw_data/<date>/<drive>."""
    root = folder.parents[2]
    depth_files = list_files(folder / "proj_depth" / "groundtruth" / "image_02")
    images = root / "raw_data" / name[:10] / name / "image_02" / "data"
    frames = [images / path.name for path in depth_files]
    absent = [path for path in frames if not path.is_file()]
    if absent or not frames:
        raise missing(DEPTH, images, f"{len(absent)} of {len(frames)} images are not there")
    intrinsics = None
    calibration = root / "raw_data" / name[:10] / "calib_cam_to_cam.txt"
    if calibration.is_file():
        rows = dict(
            line.split(":", 1) for line in calibration.read_text(encoding="utf-8").splitlines() if ":" in line
        )
        p = [float(value) for value in rows["P_rect_02"].split()]
        intrinsics = constant_intrinsics(len(frames), p[0], p[5], p[2], p[6], integer_centres=True)
    return _drive(frames, depth_files, name, folder, intrinsics)


def _load_selection(folder: Path, drive: str) -> Sequence:
    """val_selection_cropped/{image,groundtruth_depth,intrinsics}: single images, here in order by drive."""
    base = folder.parent
    frames = sorted(folder.glob(f"{drive}_image_*.png"))
    depth_files = [
        base / "groundtruth_depth" / path.name.replace("_image_0", "_groundtruth_depth_0", 1)
        for path in frames
    ]
    absent = [path for path in depth_files if not path.is_file()]
    if absent:
        raise missing(DEPTH, base, f"{absent[0].name} is not there")
    texts = [base / "intrinsics" / path.with_suffix(".txt").name for path in frames]
    intrinsics = None
    if all(text.is_file() for text in texts):
        intrinsics = np.stack([np.loadtxt(text, encoding="utf-8").reshape(3, 3) for text in texts])
        intrinsics[:, :2, 2] += 0.5
    return _drive(frames, depth_files, drive, base, intrinsics)


def _drive(
    frames: list[Path],
    depth_files: list[Path],
    name: str,
    folder: Path,
    intrinsics: np.ndarray | None,
    scale: float = 256.0,
) -> Sequence:
    if not frames or not depth_files:
        raise missing(DEPTH, folder, f"{len(frames)} images and {len(depth_files)} depth maps")
    depth_files = same_stems(frames, depth_files, DEPTH, folder, "depth maps")
    numbers = [int(digits[-1]) for path in frames if (digits := re.findall(r"\d{10}", path.stem))]
    counted = len(numbers) == len(frames) and bool((np.diff(numbers) > 0).all())
    depth = map_frames(depth_files, png_depth(scale))
    return Sequence(
        name=name,
        dataset="kitti",
        times_s=np.array(numbers if counted else range(len(frames))) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=intrinsics,
        depth_source="accumulated lidar (sparse)",
        files=(*frames, *depth_files),
        notes=() if intrinsics is not None else ("no intrinsics in this layout",),
    )


def _record_drive(folder: Path, inside: Path) -> Recording | None:
    """A raw drive: <date>/<drive>/image_0N/data, its timestamps.txt, and the date's calibration."""
    chosen = choose_camera(folder, [f"image_0{i}/data" for i in (2, 0, 3, 1)], inside)
    if chosen is None or not re.search(r"drive_\d{4}", folder.name):
        return None
    images, cameras = chosen
    files = list_files(images)
    if not files:
        return None
    camera = images.parent.name
    about = f"{len(files)} pictures of {camera} ({_EYES[int(camera[-1])]})"
    notes = [f"recognised as a KITTI raw drive: {about}", *_other_cameras(camera, cameras)]
    numbers = _numbers(files)
    stamps = images.parent / "timestamps.txt"
    if stamps.is_file():
        listed = load_frame_times(stamps).times_s
        times_s, note = _times_by_number(listed, numbers, stamps), "times are those of timestamps.txt"
    else:
        times_s, note = (
            numbers / FPS,
            f"there is no timestamps.txt; times are the pictures' numbers at {FPS:g} Hz",
        )
    intrinsics, size, calibration = None, None, folder.parent / "calib_cam_to_cam.txt"
    if calibration.is_file():
        rows = dict(
            line.split(":", 1) for line in calibration.read_text(encoding="utf-8").splitlines() if ":" in line
        )
        try:
            p = [float(value) for value in rows[f"P_rect_{camera[-2:]}"].split()]
            intrinsics = (p[0], p[5], p[2] + 0.5, p[6] + 0.5)
            if f"S_rect_{camera[-2:]}" in rows:
                width, height = (int(float(value)) for value in rows[f"S_rect_{camera[-2:]}"].split())
                size = (height, width)
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(f"expected P_rect_{camera[-2:]} with 12 numbers in {calibration}") from error
    known = (
        "rectified pictures" if intrinsics is not None else f"there is no {calibration.name} beside the drive"
    )
    return Recording("KITTI", tuple(files), times_s, intrinsics, size, known, (*notes, note))


_EYES = ("left, grey", "right, grey", "left, colour", "right, colour")


def _other_cameras(camera: str, cameras: list[str]) -> list[str]:
    if len(cameras) < 2:
        return []
    return [f"{camera} is one of {len(cameras)} cameras; name the folder of another to take that one"]


def _numbers(files: list[Path]) -> np.ndarray:
    try:
        return np.array([int(path.stem) for path in files])
    except ValueError as error:
        raise InputError(f"expected pictures that are named by numbers in {files[0].parent}") from error


def _times_by_number(listed: np.ndarray, numbers: np.ndarray, source: Path) -> np.ndarray:
    """The line of a picture's number; lines count from 0."""
    if numbers.max() >= len(listed):
        raise InputError(f"{source} has {len(listed)} times, but a picture has number {numbers.max()}")
    return listed[numbers]


def _record_odometry(folder: Path, inside: Path) -> Recording | None:
    chosen = choose_camera(folder, ("image_2", "image_0", "image_3", "image_1", "image_l"), inside)
    if chosen is None or not (folder / "calib.txt").is_file():
        return None
    images, cameras = chosen
    files = list_files(images)
    if not files:
        return None
    row = 0 if images.name == "image_l" else int(images.name[-1])
    p = _projection(folder, row)
    about = f"{len(files)} pictures of {images.name} ({_EYES[row]})"
    notes = [f"recognised as KITTI odometry: {about}", *_other_cameras(images.name, cameras)]
    numbers = _numbers(files)
    if (folder / "times.txt").is_file():
        source = folder / "times.txt"
        times_s = _times_by_number(load_frame_times(source).times_s, numbers, source)
        notes.append("times are those of times.txt")
    else:
        times_s = numbers / FPS
        notes.append(f"there is no times.txt; times are the pictures' numbers at {FPS:g} Hz")
    intrinsics = (float(p[0, 0]), float(p[1, 1]), float(p[0, 2] + 0.5), float(p[1, 2] + 0.5))
    return Recording("KITTI", tuple(files), times_s, intrinsics, None, "rectified pictures", tuple(notes))


def _projection(folder: Path, row: int) -> np.ndarray:
    """[3, 4] of one camera, from calib.txt."""
    rows = [
        line.split(":")[-1].split()
        for line in (folder / "calib.txt").read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    try:
        return np.array([float(word) for word in rows[row]]).reshape(3, 4)
    except (ValueError, IndexError) as error:
        raise missing(ODOMETRY, folder, "calib.txt has no 3x4 projection matrix for these images") from error


def _find_odometry(root: Path) -> dict[str, Path]:
    def is_piece(path: Path) -> bool:
        return (path / "calib.txt").is_file() and _images(path) is not None

    if is_piece(root):
        return {root.name: root}
    for base in (root / "sequences", root / "dataset" / "sequences", root):
        found = {path.name: path for path in sorted(base.glob("[0-9][0-9]")) if is_piece(path)}
        if found:
            return found
    return {}


def _images(folder: Path) -> Path | None:
    names = ("image_2", "image_0", "image_l")
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _load_odometry(folder: Path, name: str) -> Sequence:
    images = _images(folder)
    frames = list_files(images) if images is not None else []
    if images is None or not frames:
        raise missing(ODOMETRY, folder, "no images in image_2, image_0 or image_l")
    candidates = (folder / "poses.txt", folder.parent.parent / "poses" / f"{name}.txt")
    poses = next((path for path in candidates if path.is_file()), None)
    p = _projection(folder, {"image_2": 2, "image_0": 0, "image_l": 0}[images.name])
    numbers = [int(path.stem) for path in frames]
    c2w = None
    if poses is not None:
        everything = load_kitti_poses(poses)
        if max(numbers) >= len(everything):
            raise missing(ODOMETRY, poses, f"{len(everything)} poses, but a frame has number {max(numbers)}")
        # Poses are of the grey left camera (0); camera 2 sits beside it by the offset in its projection matrix.
        offset = np.eye(4)
        offset[0, 3] = -p[0, 3] / p[0, 0]
        c2w = everything[numbers] @ offset
    times = np.array(numbers) / FPS
    if (folder / "times.txt").is_file():
        times = np.loadtxt(folder / "times.txt", encoding="utf-8")[numbers]
    rgb = rgb_frames(frames)
    return Sequence(
        name=name,
        dataset="kitti-odometry",
        times_s=times,
        size=map_size(rgb),
        rgb=rgb,
        intrinsics=constant_intrinsics(len(frames), p[0, 0], p[1, 1], p[0, 2], p[1, 2], integer_centres=True),
        c2w=c2w,
        pose_source="GPS and inertial",
        files=(*frames, folder / "calib.txt", *([poses] if poses else [])),
    )


DEPTH = Reader(
    name="kitti",
    title="KITTI annotated depth",
    url=_DEPTH_URL,
    layout=(
        "data_depth_annotated/val/<drive>/proj_depth/groundtruth/image_02/*.png with "
        "raw_data/<date>/<drive>/image_02/data; or "
        "val_selection_cropped/{image_gathered,groundtruth_depth_gathered}/<drive>_02; or "
        "val_selection_cropped/{image,groundtruth_depth,intrinsics}; or rgb/, depth/, test_annotations.json."
    ),
    find=_find_depth,
    load=_load_depth,
    record=_record_drive,
)
ODOMETRY = Reader(
    name="kitti-odometry",
    title="KITTI odometry",
    url="https://www.cvlibs.net/datasets/kitti/eval_odometry.php (CC BY-NC-SA 3.0)",
    layout="sequences/NN/image_2|image_0/*.png, calib.txt, times.txt; poses/NN.txt (3x4 camera-to-world per row).",
    find=_find_odometry,
    load=_load_odometry,
    record=_record_odometry,
)
