"""EuRoC: grey drone video. Truth is either of the body (original csv) or of the left camera (text files of DPVO)."""

import re
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Recording, Sequence, missing
from geo4d.datasets.pieces import (
    associate_nearest,
    choose_camera,
    constant_intrinsics,
    map_size,
    present,
    rgb_frames,
)
from geo4d.datasets.readers.tum import existing
from geo4d.errors import InputError
from geo4d.formats.cameras import quaternions_to_poses
from geo4d.formats.times import load_frame_times
from geo4d.geometry.distortion import Distortion

MAX_DIFFERENCE_S = 0.01


def _find(root: Path) -> dict[str, Path]:
    if (root / "mav0" / "cam0" / "data.csv").is_file():
        return {root.name: root}
    return {
        path.name: path for path in sorted(root.iterdir()) if (path / "mav0" / "cam0" / "data.csv").is_file()
    }


def _yaml_numbers(text: str, key: str) -> list[float]:
    match = re.search(rf"{key}:\s*\[([^\]]*)\]", text)
    if match is None:
        raise InputError(f"expected a list '{key}' in sensor.yaml")
    return [float(word) for word in match[1].replace(",", " ").split()]


def load_truth(folder: Path) -> tuple[np.ndarray, np.ndarray, Path]:
    """Stamps in seconds, ``c2w`` of the left camera, and the file they came from.

    Raises:
        InputError: neither the original csv nor a text file of camera centres is there.
    """
    original = folder / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    sensor = (folder / "mav0" / "cam0" / "sensor.yaml").read_text(encoding="utf-8")
    if original.is_file():
        rows = np.loadtxt(original, delimiter=",", comments="#", ndmin=2, encoding="utf-8")
        body_to_world = quaternions_to_poses(rows[:, 1:4], rows[:, 4:8])
        camera_to_body = np.array(_yaml_numbers(sensor, "data")).reshape(4, 4)  # T_BS
        return rows[:, 0] * 1e-9, body_to_world @ camera_to_body, original
    text = next(iter(sorted((folder / "groundtruth").glob("*.txt"))), None)
    if text is None:
        raise missing(
            READER, folder, "neither mav0/state_groundtruth_estimate0/data.csv nor groundtruth/*.txt"
        )
    rows = np.loadtxt(text, comments="#", ndmin=2, encoding="utf-8")
    # Centres are those of the left camera, but the quaternion (wxyz) turns world to camera: the inverse is needed.
    poses = quaternions_to_poses(rows[:, 1:4], rows[:, 4:8] * np.array([1, -1, -1, -1]))
    return rows[:, 0] * 1e-9, poses, text


def _distortion(text: str, path: Path) -> Distortion | None:
    """What ``sensor.yaml`` says of the lens; None where it names no coefficients, or only zeros.

    Raises:
        InputError: a model that is not known.
    """
    if "distortion_coefficients:" not in text:
        return None
    model = re.search(r"^distortion_model:\s*([\w-]+)", text, re.MULTILINE)
    coefficients = tuple(_yaml_numbers(text, "distortion_coefficients"))
    try:
        found = Distortion.named("radial-tangential" if model is None else model[1], coefficients)
    except ValueError as error:
        raise InputError(f"{path}: {error}; --distortion none takes the pictures as they are") from error
    return None if found.is_none else found


def body_trajectory_camera(path: Path, video: Path | None) -> tuple[str, np.ndarray] | None:
    """Where a camera sits on the body whose poses a csv of the data set holds.

    Args:
        path: the csv, such as ``mav0/state_groundtruth_estimate0/data.csv``.
        video: folder of the pictures, which names the camera; anything else takes ``cam0``.
    Returns:
        name of the camera and [4, 4] camera to body (``T_BS``); None where there is no ``sensor.yaml`` for it.
    Raises:
        InputError: ``sensor.yaml`` has no ``T_BS``.
    """
    rig = path.absolute().parent.parent
    name = "cam0"
    if video is not None:
        inside = [part.name for part in (video.absolute(), *video.absolute().parents) if part.parent == rig]
        name = inside[0] if inside and re.fullmatch(r"cam[0-9]+", inside[0]) else name
    sensor = rig / name / "sensor.yaml"
    if not sensor.is_file():
        return None
    numbers = _yaml_numbers(sensor.read_text(encoding="utf-8", errors="replace"), "data")
    if len(numbers) != 16:
        raise InputError(f"expected 16 numbers of T_BS in {sensor}, got {len(numbers)}")
    return name, np.array(numbers).reshape(4, 4)


def _record(folder: Path, inside: Path) -> Recording | None:
    chosen = choose_camera(folder, ("mav0/cam0", "mav0/cam1"), inside)
    if chosen is None or not (chosen[0] / "data.csv").is_file():
        return None
    camera, cameras = chosen
    listed = load_frame_times(camera / "data.csv", unit="nanoseconds")
    times_s, files, absent = present(camera / "data", listed.times_s, listed.names or ())
    if not files:
        return None
    notes = [f"recognised as EuRoC MAV: {len(files)} pictures of {camera.name} and their times from data.csv"]
    if len(cameras) > 1:
        notes.append(
            f"{camera.name} is one of {len(cameras)} cameras; name the folder of another to take that one"
        )
    if absent:
        notes.append(f"{absent} of {len(listed.times_s)} pictures of data.csv are not in the folder")
    intrinsics, size, distortion, about = None, None, None, "there is no sensor.yaml"
    if (camera / "sensor.yaml").is_file():
        text = (camera / "sensor.yaml").read_text(encoding="utf-8", errors="replace")
        fx, fy, cx, cy = _yaml_numbers(text, "intrinsics")
        intrinsics = (fx, fy, cx + 0.5, cy + 0.5)
        if "resolution:" in text:
            width, height = (int(value) for value in _yaml_numbers(text, "resolution"))
            size = (height, width)
        distortion = _distortion(text, camera / "sensor.yaml")
        if distortion is not None:
            about = "sensor.yaml, of distorted pictures"
        elif "distortion_coefficients:" in text:
            about = "sensor.yaml, of pictures without distortion"
        else:
            about = "sensor.yaml, which states no distortion"
    return Recording("EuRoC MAV", tuple(files), times_s, intrinsics, size, about, tuple(notes), distortion)


def _load(folder: Path, name: str) -> Sequence:
    camera = folder / "mav0" / "cam0"
    listed = load_frame_times(camera / "data.csv", unit="nanoseconds")
    names = [f"data/{name}" for name in listed.names or ()]
    times, frames = existing(camera, listed.times_s[: len(names)], names)
    if not frames:
        raise missing(READER, camera, "none of the images in data.csv is there")
    pose_times, poses, source = load_truth(folder)
    nearest = associate_nearest(times, pose_times, MAX_DIFFERENCE_S)
    k = _yaml_numbers((camera / "sensor.yaml").read_text(encoding="utf-8"), "intrinsics")
    rgb = rgb_frames(frames)
    notes = ["images are distorted (radial-tangential); intrinsics are the pinhole part"]
    if len(frames) < len(names):
        notes.append(f"{len(names) - len(frames)} of {len(names)} images of data.csv are not in the folder")
    return Sequence(
        name=name,
        dataset="euroc",
        times_s=times,
        size=map_size(rgb),
        rgb=rgb,
        intrinsics=constant_intrinsics(len(frames), *k, integer_centres=True),
        c2w=np.where((nearest >= 0)[:, None, None], poses[nearest], np.nan),
        pose_source="motion capture",
        files=(*frames, camera / "sensor.yaml", source),
        notes=tuple(notes),
    )


READER = Reader(
    name="euroc",
    title="EuRoC MAV",
    url="https://projects.asl.ethz.ch/datasets/doku.php?id=kmavvisualinertialdatasets",
    layout="<sequence>/mav0/cam0/data.csv, data/*.png, sensor.yaml; mav0/state_groundtruth_estimate0/data.csv.",
    find=_find,
    load=_load,
    record=_record,
)
