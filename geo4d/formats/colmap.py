"""COLMAP models, binary and text."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Int, UInt8

from geo4d.errors import InputError
from geo4d.formats.cameras import invert_poses, poses_to_quaternions, quaternions_to_poses
from geo4d.formats.files import existing_file, new_file

_COLMAP_MODELS = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
}
_COLMAP_MODEL_NAMES = {number: name for name, (number, _) in _COLMAP_MODELS.items()}


@dataclass(frozen=True)
class ColmapModel:
    """A COLMAP reconstruction of N images and M points.

    Attributes:
        names: image file names.
        intrinsics: pinhole part, pixels, centres at +0.5.
        sizes: (height, width) of every image.
        c2w: OpenCV axes.
        distortion: per image, the model's distortion parameters (empty for pinhole models).
        points: world positions.
        colours: RGB of the points.
        point_errors: mean reprojection error of every point, pixels.
        track_points, track_images, track_pixels: one row per observation: point row, image row, pixel position.
    """

    names: list[str]
    intrinsics: Float[np.ndarray, "N 3 3"]
    sizes: list[tuple[int, int]]
    c2w: Float[np.ndarray, "N 4 4"]
    distortion: list[tuple[float, ...]] = field(default_factory=list)
    points: Float[np.ndarray, "M 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    colours: UInt8[np.ndarray, "M 3"] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    point_errors: Float[np.ndarray, " M"] = field(default_factory=lambda: np.zeros(0))
    track_points: Int[np.ndarray, " L"] = field(default_factory=lambda: np.zeros(0, np.int64))
    track_images: Int[np.ndarray, " L"] = field(default_factory=lambda: np.zeros(0, np.int64))
    track_pixels: Float[np.ndarray, "L 2"] = field(default_factory=lambda: np.zeros((0, 2)))


def save_colmap(folder: str | Path, model: ColmapModel, *, binary: bool = True, text: bool = True) -> None:
    """Write ``cameras``, ``images`` and ``points3D`` (.bin and / or .txt) into ``folder``.

    One PINHOLE camera per distinct (intrinsics, size); every point lists its observations and every image its 2-D
    points, as readers require. The folder should be a temporary one of ``new_folder``.

    Raises:
        ValueError: the model has distortion, which PINHOLE cannot hold.
    """
    if any(model.distortion):
        raise ValueError("expected pinhole cameras, got distortion; undistort the images first")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [
        (size, (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])))
        for size, k in zip(model.sizes, model.intrinsics, strict=True)
    ]
    camera_ids = {key: number for number, key in enumerate(dict.fromkeys(parameters), 1)}
    w2c = invert_poses(model.c2w)
    quaternion = poses_to_quaternions(w2c)
    # Observations sorted by image give the 2-D points; the position inside the image is what point tracks refer to.
    order = np.argsort(model.track_images, kind="stable")
    image_of, point_of, pixels = (
        model.track_images[order],
        model.track_points[order],
        model.track_pixels[order],
    )
    starts = np.searchsorted(image_of, np.arange(len(model.names) + 1))
    position = np.arange(len(order)) - starts[image_of] if len(order) else np.zeros(0, np.int64)
    by_point = np.argsort(point_of, kind="stable")
    point_starts = np.searchsorted(point_of[by_point], np.arange(len(model.points) + 1))

    def observations(image: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(starts[image], starts[image + 1])
        return pixels[rows], point_of[rows] + 1

    def track(point: int) -> np.ndarray:
        rows = by_point[point_starts[point] : point_starts[point + 1]]
        return np.stack([image_of[rows] + 1, position[rows]], axis=1)

    if binary:
        with new_file(folder / "cameras.bin") as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(camera_ids)))
            for (size, values), number in camera_ids.items():
                file.write(struct.pack("<iiQQ4d", number, 1, size[1], size[0], *values))
        with new_file(folder / "images.bin") as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(model.names)))
            for i, name in enumerate(model.names):
                camera = camera_ids[parameters[i]]
                file.write(struct.pack("<i7di", i + 1, *quaternion[i], *w2c[i, :3, 3], camera))
                file.write(name.encode() + b"\0")
                xy, ids = observations(i)
                record = np.zeros(len(xy), [("xy", "<f8", 2), ("id", "<i8")])
                record["xy"], record["id"] = xy, ids
                file.write(struct.pack("<Q", len(xy)) + record.tobytes())
        with new_file(folder / "points3D.bin") as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(model.points)))
            for j, xyz in enumerate(model.points):
                rows = track(j)
                rgb = (int(c) for c in model.colours[j])
                file.write(
                    struct.pack("<Q3d3BdQ", j + 1, *xyz, *rgb, float(model.point_errors[j]), len(rows))
                )
                file.write(rows.astype("<i4").tobytes())
    if text:
        with new_file(folder / "cameras.txt") as temporary, temporary.open("w", encoding="utf-8") as out:
            out.write("# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy (pixel centres at +0.5)\n")
            for (size, values), number in camera_ids.items():
                out.write(f"{number} PINHOLE {size[1]} {size[0]} {' '.join(f'{v:.17g}' for v in values)}\n")
        with new_file(folder / "images.txt") as temporary, temporary.open("w", encoding="utf-8") as out:
            out.write("# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME (world to camera, OpenCV axes)\n")
            out.write("# POINTS2D as X Y POINT3D_ID\n")
            for i, name in enumerate(model.names):
                numbers = " ".join(f"{v:.17g}" for v in (*quaternion[i], *w2c[i, :3, 3]))
                out.write(f"{i + 1} {numbers} {camera_ids[parameters[i]]} {name}\n")
                xy, ids = observations(i)
                out.write(
                    " ".join(f"{p[0]:.17g} {p[1]:.17g} {n}" for p, n in zip(xy, ids, strict=True)) + "\n"
                )
        with new_file(folder / "points3D.txt") as temporary, temporary.open("w", encoding="utf-8") as out:
            out.write("# POINT3D_ID X Y Z R G B ERROR TRACK as IMAGE_ID POINT2D_INDEX\n")
            for j, xyz in enumerate(model.points):
                words = [str(j + 1), *(f"{v:.17g}" for v in xyz), *(str(int(c)) for c in model.colours[j])]
                words.append(f"{float(model.point_errors[j]):.17g}")
                words.extend(str(v) for v in track(j).reshape(-1))
                out.write(" ".join(words) + "\n")


def load_colmap(folder: str | Path) -> ColmapModel:
    """Read a COLMAP model (binary if there, else text), images in the order of their names.

    Raises:
        InputError: files are missing or malformed, or a camera model is not supported.
    """
    folder = Path(folder)
    try:
        return _read_colmap(folder)
    except (struct.error, IndexError, ValueError, KeyError, OverflowError, TypeError) as error:
        raise InputError(f"expected a COLMAP model in {folder}, but it is malformed: {error}") from error


def _read_colmap(folder: Path) -> ColmapModel:
    if (folder / "images.bin").is_file():
        cameras = _read_cameras_binary(existing_file(folder / "cameras.bin", "COLMAP cameras"))
        images = _read_images_binary(folder / "images.bin")
        points = _read_points_binary(folder / "points3D.bin")
    else:
        cameras = _read_cameras_text(
            existing_file(folder / "cameras.txt", "COLMAP cameras (cameras.txt or .bin)")
        )
        images = _read_images_text(existing_file(folder / "images.txt", "COLMAP images (images.txt or .bin)"))
        points = _read_points_text(folder / "points3D.txt")
    if any(not np.isfinite(image[2]).all() or not any(image[2]) for image in images):
        raise ValueError("a rotation of length 0 or one that is not finite")
    if any(len(point[4]) and point[4][:, 1].min() < 0 for point in points):
        raise ValueError("a track with a negative index")
    images.sort(key=lambda image: image[1])
    rows = {image[0]: row for row, image in enumerate(images)}
    missing = {image[4] for image in images} - cameras.keys()
    if missing or not images:
        raise InputError(
            f"expected images and all their cameras in {folder}; missing cameras: {sorted(missing)}"
        )
    poses = np.tile(np.eye(4), (len(images), 1, 1))
    poses[:, :3] = [
        quaternions_to_poses(np.array([image[3]]), np.array([image[2]]))[0, :3] for image in images
    ]
    observations = [
        (j, rows[image_id], images[rows[image_id]][5][index])
        for j, point in enumerate(points)
        for image_id, index in point[4]
        if image_id in rows
    ]
    return ColmapModel(
        names=[image[1] for image in images],
        intrinsics=np.stack([cameras[image[4]][1] for image in images]),
        sizes=[cameras[image[4]][0] for image in images],
        distortion=[cameras[image[4]][2] for image in images],
        c2w=invert_poses(poses),
        points=np.array([point[1] for point in points], np.float64).reshape(-1, 3),
        colours=np.array([point[2] for point in points], np.uint8).reshape(-1, 3),
        point_errors=np.array([point[3] for point in points], np.float64),
        track_points=np.array([row[0] for row in observations], np.int64),
        track_images=np.array([row[1] for row in observations], np.int64),
        track_pixels=np.array([row[2] for row in observations], np.float64).reshape(-1, 2),
    )


def _colmap_camera(
    model: str, width: int, height: int, p: Sequence[float]
) -> tuple[tuple[int, int], np.ndarray, tuple[float, ...]]:
    if len(p) != _COLMAP_MODELS[model][1]:
        raise ValueError(f"camera model {model} has {_COLMAP_MODELS[model][1]} parameters, got {len(p)}")
    if model in ("PINHOLE", "OPENCV"):
        fx, fy, cx, cy = p[:4]
        distortion = tuple(p[4:])
    else:
        fx = fy = p[0]
        cx, cy = p[1:3]
        distortion = tuple(p[3:])
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
    return (height, width), matrix, distortion if any(distortion) else ()


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, _take(file, struct.calcsize(layout)))


def _take(file: BinaryIO, num_bytes: int) -> bytes:
    """So many bytes, which must be there: nothing is allocated for more than the file holds."""
    position = file.tell()
    remaining = file.seek(0, 2) - position
    file.seek(position)
    if num_bytes > remaining:
        raise ValueError(f"{num_bytes} bytes are promised where {remaining} are left")
    return file.read(num_bytes)


def _read_cameras_binary(path: Path) -> dict[int, Any]:
    cameras = {}
    with path.open("rb") as file:
        for _ in range(_unpack(file, "<Q")[0]):
            number, model_number, width, height = _unpack(file, "<iiQQ")
            if model_number not in _COLMAP_MODEL_NAMES:
                raise ValueError(f"camera model number {model_number} is not supported; undistort to PINHOLE")
            model = _COLMAP_MODEL_NAMES[model_number]
            parameters = _unpack(file, f"<{_COLMAP_MODELS[model][1]}d")
            cameras[number] = _colmap_camera(model, width, height, parameters)
    return cameras


def _read_images_binary(path: Path) -> list[tuple[Any, ...]]:
    images = []
    with path.open("rb") as file:
        for _ in range(_unpack(file, "<Q")[0]):
            number, *pose, camera = _unpack(file, "<i7di")
            name = b""
            while (character := file.read(1)) != b"\0":
                if not character or len(name) > 4096:
                    raise ValueError("image name without end")
                name += character
            count = _unpack(file, "<Q")[0]
            record = np.frombuffer(_take(file, 24 * count), [("xy", "<f8", 2), ("id", "<i8")])
            images.append((number, name.decode(), pose[:4], pose[4:], camera, record["xy"]))
    return images


def _read_points_binary(path: Path) -> list[tuple[Any, ...]]:
    if not path.is_file():
        return []
    points = []
    with path.open("rb") as file:
        for _ in range(_unpack(file, "<Q")[0]):
            number, x, y, z, r, g, b, error, length = _unpack(file, "<Q3d3BdQ")
            track = np.array(_unpack(file, f"<{2 * length}i"), np.int64).reshape(-1, 2)
            points.append((number, (x, y, z), (r, g, b), error, track))
    return points


def _text_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def _read_cameras_text(path: Path) -> dict[int, Any]:
    cameras = {}
    for line in filter(str.strip, _text_lines(path)):
        number, model, width, height, *parameters = line.split()
        if model not in _COLMAP_MODELS:
            raise ValueError(f"camera model {model} is not supported; undistort to PINHOLE")
        cameras[int(number)] = _colmap_camera(model, int(width), int(height), [float(p) for p in parameters])
    return cameras


def _read_images_text(path: Path) -> list[tuple[Any, ...]]:
    images = []
    lines = _text_lines(path)
    while lines and not lines[-1].strip() and len(lines) % 2:
        lines.pop()
    for first, second in zip(lines[0::2], lines[1::2], strict=True):
        number, *numbers = first.split(maxsplit=9)
        pose, camera, name = [float(v) for v in numbers[:7]], int(numbers[7]), numbers[8]
        xy = np.array(second.split(), np.float64).reshape(-1, 3)[:, :2]
        images.append((int(number), name, pose[:4], pose[4:], camera, xy))
    return images


def _read_points_text(path: Path) -> list[tuple[Any, ...]]:
    if not path.is_file():
        return []
    points = []
    for line in filter(str.strip, _text_lines(path)):
        words = line.split()
        track = np.array(words[8:], np.int64).reshape(-1, 2)
        position, colour = [float(v) for v in words[1:4]], [int(v) for v in words[4:7]]
        points.append((int(words[0]), position, colour, float(words[7]), track))
    return points
