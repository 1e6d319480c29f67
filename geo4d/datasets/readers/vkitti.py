"""Virtual KITTI 1.3.1 and 2: KITTI's drives rebuilt in a game engine, each in several weathers and camera directions.

Get them from https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-1 and -2 (CC BY-NC-SA 3.0).

- Depth: 16-bit PNG, z-depth in centimetres; from 65,500 on (far plane, 655.35 m) it is the sky (+inf).
- Cameras: world to camera, rows r1,1 .. t3 (and 0 0 0 1), OpenCV axes. Version 1 has one camera for all
  (725, 725, 620.5, 187 at 1242 x 375); version 2 lists it for each frame and camera. Both count pixel centres as
  integers: 620.5 is (1242 - 1) / 2.
- Version 2 has two cameras; the first (``Camera_0``, left) is read.
- Times: KITTI's 10 frames a second.

Source: the data sets' own pages (camera and file description of version 1 as quoted in public code; limits of depth in
CUT3R's datasets/vkitti2.py); files and columns of version 2, MotionCrafter (gen_virtual_kitti2_video.py).
"""

import csv
from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    frame_numbers,
    intrinsics_rows,
    known_depth,
    list_files,
    map_frames,
    map_size,
    rgb_frames,
    same_stems,
)
from geo4d.errors import InputError
from geo4d.formats.files import existing_file
from geo4d.formats.images import load_png16

FPS = 10.0
SKY = 655.0
INTRINSICS_1 = (725.0, 725.0, 620.5, 187.0)
_EXTRINSICS = tuple(
    f"{column}{row}" if column == "t" else f"r{row},{column}" for row in "123" for column in "123t"
)
_PREFIX = "vkitti_1.3.1_"


def _depth(path: Path) -> np.ndarray:
    return known_depth(load_png16(path) / 100, sky_from=SKY)


def _load_table(
    path: Path, columns: tuple[str, ...], numbers: np.ndarray, camera: int | None = None
) -> np.ndarray:
    """[T, columns] of a table with a header, for these frames.

    Raises:
        InputError: a column or frame is missing, or a value is no number.
    """
    lines = existing_file(path, "a camera file").read_text(encoding="utf-8").split("\n")
    rows = list(csv.DictReader((" ".join(line.split()) for line in lines), delimiter=" "))
    try:
        table = {
            int(row["frame"]): [float(row[column]) for column in columns]
            for row in rows
            if camera is None or int(row["cameraID"]) == camera
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected columns frame, {', '.join(columns)} with numbers in {path}: {error!r}"
        ) from error
    absent = [number for number in numbers.tolist() if number not in table]
    if absent:
        raise InputError(f"expected a row for frame {absent[0]} in {path}, found {len(table)} frames")
    return np.array([table[number] for number in numbers.tolist()])


def _sequence(
    reader: Reader,
    name: str,
    frames: list[Path],
    depth_files: list[Path],
    intrinsics: np.ndarray,
    extrinsics: np.ndarray,
    cameras: tuple[Path, ...],
) -> Sequence:
    w2c = np.tile(np.eye(4), (len(frames), 1, 1))
    w2c[:, :3] = extrinsics.reshape(-1, 3, 4)
    depth = map_frames(depth_files, _depth)
    return Sequence(
        name=name,
        dataset=reader.name,
        times_s=frame_numbers(frames) / FPS,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=intrinsics,
        c2w=np.linalg.inv(w2c),
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, *cameras),
    )


def _find_1(root: Path) -> dict[str, Path]:
    base = root / f"{_PREFIX}rgb"
    if not base.is_dir():
        return {}
    return {
        f"{world.name}/{variation.name}": variation
        for world in sorted(base.iterdir())
        if world.is_dir()
        for variation in sorted(world.iterdir())
        if variation.is_dir()
    }


def _load_1(folder: Path, name: str) -> Sequence:
    root = folder.parents[2]
    world, variation = folder.parent.name, folder.name
    frames = list_files(folder)
    depth_files = list_files(root / f"{_PREFIX}depthgt" / world / variation)
    if not frames or not depth_files:
        raise missing(VERSION_1, root, f"{len(frames)} pictures and {len(depth_files)} depth maps of {name}")
    depth_files = same_stems(frames, depth_files, VERSION_1, root, f"depth maps in {_PREFIX}depthgt/{name}")
    cameras = root / f"{_PREFIX}extrinsicsgt" / f"{world}_{variation}.txt"
    if not cameras.is_file():
        raise missing(VERSION_1, root, f"no {_PREFIX}extrinsicsgt/{cameras.name}")
    extrinsics = _load_table(cameras, _EXTRINSICS, frame_numbers(frames))
    intrinsics = constant_intrinsics(len(frames), *INTRINSICS_1, integer_centres=True)
    return _sequence(VERSION_1, name, frames, depth_files, intrinsics, extrinsics, (cameras,))


def _find_2(root: Path) -> dict[str, Path]:
    def is_sequence(path: Path) -> bool:
        return (path / "frames" / "rgb" / "Camera_0").is_dir()

    if is_sequence(root):
        return {f"{root.parent.name}/{root.name}": root}
    scenes = [root] if root.name.startswith("Scene") else sorted(root.glob("Scene*"))
    return {
        f"{scene.name}/{path.name}": path
        for scene in scenes
        if scene.is_dir()
        for path in sorted(scene.iterdir())
        if is_sequence(path)
    }


def _load_2(folder: Path, name: str) -> Sequence:
    frames = list_files(folder / "frames" / "rgb" / "Camera_0")
    depth_files = list_files(folder / "frames" / "depth" / "Camera_0", (".png",))
    if not frames or not depth_files:
        raise missing(
            VERSION_2, folder, f"{len(frames)} pictures and {len(depth_files)} depth maps of Camera_0"
        )
    absent = [f"{kind}.txt" for kind in ("intrinsic", "extrinsic") if not (folder / f"{kind}.txt").is_file()]
    if absent:
        raise missing(VERSION_2, folder, f"no {' and no '.join(absent)}")
    depth_files = same_stems(frames, depth_files, VERSION_2, folder, "depth maps in frames/depth/Camera_0")
    numbers = frame_numbers(frames)
    names = ("K[0,0]", "K[1,1]", "K[0,2]", "K[1,2]")
    intrinsics = intrinsics_rows(
        _load_table(folder / "intrinsic.txt", names, numbers, camera=0), integer_centres=True
    )
    extrinsics = _load_table(folder / "extrinsic.txt", _EXTRINSICS, numbers, camera=0)
    texts = (folder / "intrinsic.txt", folder / "extrinsic.txt")
    return _sequence(VERSION_2, name, frames, depth_files, intrinsics, extrinsics, texts)


VERSION_1 = Reader(
    name="vkitti",
    title="Virtual KITTI 1.3.1",
    url="https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-1 (CC BY-NC-SA 3.0)",
    layout="vkitti_1.3.1_rgb/<world>/<variation>/NNNNN.png, vkitti_1.3.1_depthgt/<world>/<variation>/NNNNN.png (uint16, "
    "cm), vkitti_1.3.1_extrinsicsgt/<world>_<variation>.txt.",
    find=_find_1,
    load=_load_1,
)
VERSION_2 = Reader(
    name="vkitti2",
    title="Virtual KITTI 2",
    url="https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2 (CC BY-NC-SA 3.0)",
    layout="SceneNN/<variation>/frames/rgb/Camera_0/rgb_NNNNN.jpg, frames/depth/Camera_0/depth_NNNNN.png (uint16, cm), "
    "intrinsic.txt, extrinsic.txt.",
    find=_find_2,
    load=_load_2,
)
