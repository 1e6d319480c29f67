"""BEDLAM: people in rendered scenes, filmed by a moving camera.

Get it from https://bedlam.is.tue.mpg.de (registration, for non-commercial research): pictures (PNG), depth (EXR, 32 bits)
and ground truth of the sequences (CSV).

- Depth: channel ``Depth`` of the EXR files, z-depth in centimetres. Frames without a depth file are left out: some sets
  hold pictures at 30 and depth at 6 frames a second.
- Cameras: ``ground_truth/camera/<sequence>_camera.csv``, a row for each picture by name: position in centimetres, yaw,
  pitch, roll in degrees in Unreal Engine's axes (``unreal_to_opencv``); focal length and sensor in millimetres, the
  principal point in the middle.
- Sky and invalid: nothing marks the sky. Depth beyond 200 m is unknown (NaN), as CUT3R treats it.
- Scenes whose surroundings are a panoramic picture have no depth that means anything (``PANORAMIC``): they are read
  without. Scenes named ``closeup`` are not read: their pictures lie on their side, and their camera was not verified.
- Times: frame number / 30.

Source: camera file, unreal/render/unreal_coordinate_system.md of PerceivingSystems/bedlam_render; folders, depth channel,
its unit and limit, and the panoramic scenes, CUT3R (preprocess_bedlam.py, datasets/bedlam.py).
"""

import csv
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    exr_map,
    frame_numbers,
    known_depth,
    list_files,
    map_frames,
    map_size,
    rgb_frames,
)
from geo4d.errors import InputError
from geo4d.formats.files import existing_file

FPS = 30.0
FAR = 200.0
"""Metres; larger values are unknown."""
PANORAMIC = (
    "20221010_3_1000_batch01hand",
    "20221017_3_1000_batch01hand",
    "20221018_3-8_250_batch01hand",
    "20221019_3_250_highbmihand",
)
_COLUMNS = ("x", "y", "z", "yaw", "pitch", "roll", "focal_length", "sensor_width", "sensor_height")


def _find(root: Path) -> dict[str, Path]:
    def is_scene(path: Path) -> bool:
        return (path / "png").is_dir() and (path / "ground_truth" / "camera").is_dir()

    scenes = [root] if is_scene(root) else [path for path in sorted(root.iterdir()) if is_scene(path)]
    return {
        f"{scene.name}/{sequence.name}": sequence
        for scene in scenes
        if "closeup" not in scene.name
        for sequence in sorted((scene / "png").iterdir())
        if sequence.is_dir()
    }


def _load_cameras(path: Path, names: list[str]) -> np.ndarray:
    """[T, 9] values of ``_COLUMNS`` for these pictures.

    Raises:
        InputError: a column or a picture is missing, or a value is no number.
    """
    with existing_file(path, "a camera file").open(encoding="utf-8", newline="") as file:
        table = {row.get("name", ""): row for row in csv.DictReader(file, skipinitialspace=True)}
    absent = [name for name in names if name not in table]
    if absent:
        raise InputError(f"expected a row for {absent[0]} in {path}, found none among {len(table)} rows")
    try:
        return np.array([[float(table[name][column]) for column in _COLUMNS] for name in names])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected the columns name, {', '.join(_COLUMNS)} with numbers in {path}: {error}"
        ) from error


def _load(folder: Path, name: str) -> Sequence:
    import torch

    from geo4d.geometry.poses import unreal_to_opencv

    scene = folder.parent.parent
    frames = list_files(folder, (".png",))
    if not frames:
        raise missing(READER, folder, "no pictures")
    notes = []
    depth = None
    depth_files: list[Path] = []
    if scene.name in PANORAMIC:
        notes.append("the surroundings of this scene are a panoramic picture: its depth is not read")
    else:
        partner = {path: scene / "depth" / folder.name / f"{path.stem}_depth.exr" for path in frames}
        with_depth = [path for path in frames if partner[path].is_file()]
        if not with_depth:
            raise missing(
                READER, scene, f"no depth/{folder.name}/<picture>_depth.exr for any of {len(frames)} pictures"
            )
        if len(with_depth) < len(frames):
            notes.append(
                f"{len(frames) - len(with_depth)} of {len(frames)} pictures have no depth and are left out"
            )
        frames, depth_files = with_depth, [partner[path] for path in with_depth]
        depth = map_frames(depth_files, lambda path: known_depth(exr_map(path, "Depth") / 100, known_to=FAR))
    camera_file = scene / "ground_truth" / "camera" / f"{folder.name}_camera.csv"
    if not camera_file.is_file():
        raise missing(READER, scene, f"no ground_truth/camera/{camera_file.name}")
    values = _load_cameras(camera_file, [path.name for path in frames])
    rgb = rgb_frames(frames)
    height, width = size = map_size(depth if depth is not None else rgb)
    intrinsics = np.tile(np.eye(3), (len(frames), 1, 1))
    intrinsics[:, 0, 0] = values[:, 6] / values[:, 7] * width
    intrinsics[:, 1, 1] = values[:, 6] / values[:, 8] * height
    intrinsics[:, :2, 2] = width / 2, height / 2
    position, angles = torch.from_numpy(values[:, :3] / 100), torch.from_numpy(np.deg2rad(values[:, 3:6]))
    return Sequence(
        name=name,
        dataset="bedlam",
        times_s=frame_numbers(frames) / FPS,
        size=size,
        rgb=rgb,
        depth=depth,
        intrinsics=intrinsics,
        c2w=unreal_to_opencv(position, angles[:, 0], angles[:, 1], angles[:, 2]).numpy(),
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, camera_file),
        notes=tuple(notes),
    )


READER = Reader(
    name="bedlam",
    title="BEDLAM",
    url="https://bedlam.is.tue.mpg.de (registration, non-commercial research)",
    layout="<scene>/png/<sequence>/*.png, depth/<sequence>/*_depth.exr, ground_truth/camera/<sequence>_camera.csv.",
    find=_find,
    load=_load,
)
