"""What the page shows of a result: small pictures of every frame, points and cameras, in a few files.

``index.json`` says what there is; ``frames.bin`` holds JPEG pictures one after the other, frame by frame, one for each
panel; ``points.bin`` holds points of 16 bytes: x, y, z as float32, red, green, blue as bytes, and a byte of padding, all
little-endian: first the static points of every scene, then those of every frame. A page asks for the bytes that it needs.
``thumb.jpg`` is for lists: the frame in the middle, half as it is and half its depth.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geo4d.errors import OutputError
from geo4d.export import ExportConfig, iter_point_clouds
from geo4d.export.kept import MOVING, default_confidence_threshold, kept_mask
from geo4d.export.points import moving_of
from geo4d.formats.files import new_folder, write_json
from geo4d.formats.points import PointCloud
from geo4d.formats.ramps import confidence_to_colours, depth_to_colours, disparity_range, ramp, to_uint8
from geo4d.types import Reconstruction

INDEX, FRAMES, POINTS, THUMB = "index.json", "frames.bin", "points.bin", "thumb.jpg"

LONG_SIDE = 480
"""Pixels of the pictures along their longer side."""

THUMB_SIDE, QUALITY = 200, 84
"""Pixels of the thumb, and the quality of all JPEGs in percent."""

STATIC_POINTS, STATIC_FRAMES = 240_000, 24
"""Points of a scene that do not move, all together, and the frames that they are taken from."""

FRAME_POINTS, MOST_FRAME_POINTS = 12_000, 3_000_000
"""Points of a frame, and of all frames together, at most."""

_GREY = (150, 150, 150)
_POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3), ("padding", "u1")])


def save_preview(
    reconstruction: Reconstruction, folder: Path, on_frame: Callable[[int], None] = lambda done: None
) -> None:
    """Write the files; the folder is there completely or not at all.

    Args:
        on_frame: is told how many frames are done.
    Raises:
        OutputError: the disk is full or not writable.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with new_folder(folder) as place:
        with (place / FRAMES).open("wb") as file:
            panels, shown_size, spans = _write_pictures(reconstruction, file, on_frame)
        with (place / POINTS).open("wb") as file:
            points = _write_points(reconstruction, file)
        (place / THUMB).write_bytes(_thumb(reconstruction))
        height, width = reconstruction.size
        index = {
            "panels": panels,
            "size": shown_size,
            "map_size": [width, height],
            "times_s": np.asarray(reconstruction.times_s, np.float64).tolist(),
            "source_frames": np.asarray(reconstruction.source_frames).tolist(),
            "reliable": _reliable(reconstruction).tolist(),
            "scene": _scenes(reconstruction).tolist(),
            "scale": reconstruction.scale_kind,
            "frames": spans,
            "cameras": _cameras(reconstruction),
            **points,
        }
        write_json(place / INDEX, index)


def _scenes(reconstruction: Reconstruction) -> np.ndarray:
    """[T] number of the scene of every frame."""
    if reconstruction.scene is None:
        return np.zeros(reconstruction.num_frames, int)
    return np.asarray(reconstruction.scene)


def _reliable(reconstruction: Reconstruction) -> np.ndarray:
    """[T] whether a frame can be trusted."""
    if reconstruction.reliable is None:
        return np.ones(reconstruction.num_frames, bool)
    return np.asarray(reconstruction.reliable, bool)


def _cameras(reconstruction: Reconstruction) -> dict[str, Any]:
    """Per frame: camera to world as 12 numbers, row by row (the identity without poses), and fx fy cx cy in pixels."""
    identity = np.tile(np.eye(4), (reconstruction.num_frames, 1, 1))
    c2w = identity if reconstruction.c2w is None else np.asarray(reconstruction.c2w, np.float64)
    k = np.asarray(reconstruction.intrinsics, np.float64)
    lenses = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], axis=1)
    return {
        "known": reconstruction.has_poses,
        "c2w": np.round(c2w[:, :3].reshape(-1, 12), 6).tolist(),
        "intrinsics": np.round(lenses, 4).tolist(),
    }


# pictures -------------------------------------------------------------------------------------------------------------


def _write_pictures(
    reconstruction: Reconstruction, file: BinaryIO, on_frame: Callable[[int], None]
) -> tuple[list[str], list[int], list[list[int]]]:
    """Names of the panels, (width, height) of their pictures, and per frame the ends of its pictures in the file."""
    names = [
        name
        for name, there in (
            ("picture", reconstruction.rgb is not None),
            ("depth", True),
            ("moving", reconstruction.dynamic is not None),
            ("confidence", True),
        )
        if there
    ]
    limits, spans, size = _limits(reconstruction), [], _small(reconstruction, LONG_SIDE)
    scenes = _scenes(reconstruction)
    for frame in range(reconstruction.num_frames):
        ends = []
        for name in names:
            pixels = _picture(reconstruction, name, frame, limits[int(scenes[frame])])
            file.write(_jpeg(pixels, size))
            ends.append(file.tell())
        spans.append(ends)
        on_frame(frame + 1)
    return names, list(size), spans


def _small(reconstruction: Reconstruction, long_side: int) -> tuple[int, int]:
    """(width, height) of pictures that are no longer than that, nor larger than the maps."""
    height, width = reconstruction.size
    factor = min(1.0, long_side / max(height, width))
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _jpeg(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    import cv2

    if (pixels.shape[1], pixels.shape[0]) != size:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    written, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    if not written:
        raise OutputError(f"OpenCV could not pack a picture of {size} pixels as JPEG")
    return data.tobytes()


def _thumb(reconstruction: Reconstruction) -> bytes:
    frame = reconstruction.num_frames // 2
    pixels = _picture(
        reconstruction, "depth", frame, _limits(reconstruction)[int(_scenes(reconstruction)[frame])]
    )
    if reconstruction.rgb is not None:
        half = pixels.shape[1] // 2
        pixels[:, :half] = _picture(reconstruction, "picture", frame, (0, 1))[:, :half]
    return _jpeg(pixels, _small(reconstruction, THUMB_SIDE))


def _limits(reconstruction: Reconstruction) -> dict[int, tuple[float, float]]:
    """Range of disparity of each scene, so that a colour means one depth through all of it."""
    scenes, limits = _scenes(reconstruction), {}
    for scene in np.unique(scenes):
        frames = np.flatnonzero(scenes == scene)
        sample = [
            np.asarray(reconstruction.depth[int(f)], np.float32)[::4, ::4]
            for f in frames[:: max(1, len(frames) // 16)]
        ]
        limits[int(scene)] = disparity_range(np.stack(sample))
    return limits


def _picture(
    reconstruction: Reconstruction, name: str, frame: int, limits: tuple[float, float]
) -> np.ndarray:
    """[H, W, 3] uint8."""
    if name == "picture":
        assert reconstruction.rgb is not None
        return to_uint8(np.asarray(reconstruction.rgb[frame], np.float32))
    if name == "depth":
        return depth_to_colours(np.asarray(reconstruction.depth[frame], np.float32), limits)
    if name == "confidence":
        return confidence_to_colours(np.asarray(reconstruction.confidence[frame], np.float32))
    moving = moving_of(reconstruction, frame)
    assert moving is not None
    return ramp(moving, "viridis")


# points ---------------------------------------------------------------------------------------------------------------


def _write_points(reconstruction: Reconstruction, file: BinaryIO) -> dict[str, Any]:
    """What the index says of the points: ends of the parts of the file, in points, and the typical depth of each scene.

    Where there are poses, a scene has static points, and its frames have those that move; otherwise every frame has all.
    """
    scenes = _scenes(reconstruction)
    kept = {int(scene): _kept(reconstruction, np.flatnonzero(scenes == scene)) for scene in np.unique(scenes)}
    static_ends, count = [], 0
    for scene, (_, config) in kept.items():
        if reconstruction.has_poses:
            count += _put(file, _static(reconstruction, np.flatnonzero(scenes == scene), config))
        static_ends.append(count)
    most = max(min(FRAME_POINTS, MOST_FRAME_POINTS // reconstruction.num_frames), 1)
    frame_ends = []
    for frame in range(reconstruction.num_frames):
        _, config = kept[int(scenes[frame])]
        cloud, moves = _cloud(reconstruction, frame, config)
        if reconstruction.has_poses:
            cloud = cloud.select(moves)
        count += _put(file, _thinned(cloud, most))
        frame_ends.append(count)
    return {
        "static_points": static_ends,
        "frame_points": frame_ends,
        "typical_depth": [depth for depth, _ in kept.values()],
    }


def _kept(reconstruction: Reconstruction, frames: np.ndarray) -> tuple[float, ExportConfig]:
    """Median depth of a scene, and the filters of its points: those of an export."""
    depth = np.asarray(reconstruction.depth[int(frames[0])], np.float32)
    finite = depth[np.isfinite(depth)]
    threshold = default_confidence_threshold(reconstruction, frames.tolist())
    return (float(np.median(finite)) if finite.size else 1.0), ExportConfig(min_confidence=threshold)


def _static(reconstruction: Reconstruction, frames: np.ndarray, config: ExportConfig) -> Iterator[PointCloud]:
    """Points of some frames of a scene that do not move."""
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, STATIC_FRAMES).round().astype(int))]
    for frame in chosen:
        cloud, moves = _cloud(reconstruction, int(frame), config)
        yield from _thinned(cloud.select(~moves), STATIC_POINTS // len(chosen))


def _cloud(reconstruction: Reconstruction, frame: int, config: ExportConfig) -> tuple[PointCloud, np.ndarray]:
    """Points of a frame, and which of them move."""
    (cloud,) = iter_point_clouds(reconstruction, [frame], config)
    moving = moving_of(reconstruction, frame)
    if moving is None:
        return cloud, np.zeros(cloud.num_points, bool)
    assert config.min_confidence is not None
    keep = kept_mask(
        np.asarray(reconstruction.depth[frame], np.float32),
        np.asarray(reconstruction.confidence[frame], np.float32),
        min_confidence=config.min_confidence,
        edge_step=config.edge_step,
    )
    return cloud, moving[keep] >= MOVING


def _thinned(cloud: PointCloud, most: int) -> Iterator[PointCloud]:
    """At most ``most`` points, drawn evenly; the same ones every time."""
    if cloud.num_points > most:
        chosen = np.random.default_rng(0).choice(cloud.num_points, most, replace=False)
        cloud = cloud.select(np.sort(chosen))
    yield cloud


def _put(file: BinaryIO, clouds: Iterator[PointCloud]) -> int:
    """Append points to the file; how many."""
    count = 0
    for cloud in clouds:
        points = np.zeros(cloud.num_points, _POINT)
        points["xyz"] = cloud.positions
        points["rgb"] = _GREY if cloud.colours is None else cloud.colours
        file.write(points.tobytes())
        count += cloud.num_points
    return count
