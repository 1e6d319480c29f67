"""A ``Reconstruction`` as the files of other tools: a dict of formats, each one function.

Every export is complete or absent, works frame by frame in bounded memory, and states its conventions: in the file where
the format has room, and in a ``README.txt`` beside the files of a folder.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geo4d.errors import GeometryError
from geo4d.formats.cameras import (
    NERFSTUDIO_DEPTH_UNIT,
    ColmapModel,
    NerfstudioModel,
    invert_poses,
    save_colmap,
    save_kitti_poses,
    save_nerfstudio,
    save_tum,
)
from geo4d.formats.colours import srgb_to_linear
from geo4d.formats.files import all_or_nothing, new_file, new_folder
from geo4d.formats.images import save_exr, save_image, save_mask, save_png16
from geo4d.formats.points import PointCloud, VoxelFilter, save_glb, save_ply
from geo4d.kept import MOVING, KeptShare, default_confidence_threshold, kept_mask
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

COLMAP_POINTS = 200_000
"""Points of a COLMAP or nerfstudio export at most."""

COLMAP_REACH = 10
"""A point of a COLMAP export is looked for in so many frames before and after its own."""

NERFSTUDIO_REACH = 100
"""Depth beyond so many times the median is left out of a nerfstudio export, so that 16 bits resolve what is near."""

Up = Literal["camera", "y", "z"]

_PLY_AXES: dict[str, tuple[np.ndarray, str]] = {
    "camera": (np.eye(3), "+x right, +y down, +z forward (OpenCV)"),
    "y": (np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]]), "+x right, +y up, +z backward (as glTF)"),
    "z": (np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]), "+x right, +y forward, +z up (as Blender)"),
}
"""For every ``--up``: the rotation from OpenCV axes to those of the file, and their names."""

FormatName = Literal["npz", "exr", "png", "ply", "glb", "tum", "kitti", "colmap", "nerfstudio", "preview"]


@dataclass(frozen=True)
class ExportConfig:
    """What goes into an export.

    Attributes:
        frames: positions in the reconstruction to export; None takes all (of ``scene``).
        scene: number of the scene, for world-frame formats when a video has shot cuts; None if there is only one.
        min_confidence: points below are left out, in [0, 1]; None takes ``kept.default_confidence_threshold``.
        edge_step: points at depth jumps above this relative step are left out; 0 keeps them.
        voxel_size: keep one point per cube of this edge, in the unit of the points; 0 keeps all.
        max_points: of a PLY or GLB file that holds all frames; more are thinned at random; 0 keeps all.
        precision: of EXR and npz values.
        up: axes of a PLY file: ``camera`` as everything here (+y down), ``y`` as glTF, ``z`` as Blender; up is that of
            the first camera, not of gravity.
        per_frame: a GLB file with one node for every frame, by name, instead of one for all.
        points_per_frame: points sampled per frame for COLMAP; fewer in long videos, see ``COLMAP_POINTS``.
        seed: of that sampling.
    """

    frames: tuple[int, ...] | None = None
    scene: int | None = None
    min_confidence: float | None = None
    edge_step: float = 0.1
    voxel_size: float = 0.0
    max_points: int = 5_000_000
    precision: Literal["half", "float"] = "float"
    up: Up = "camera"
    per_frame: bool = False
    points_per_frame: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_points < 0 or self.points_per_frame < 1:
            raise ValueError(
                f"expected max_points >= 0 and points_per_frame >= 1, got {self.max_points} and {self.points_per_frame}"
            )
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"expected a min_confidence in [0, 1], got {self.min_confidence}")
        if not (self.edge_step >= 0 and self.voxel_size >= 0):
            raise ValueError(
                f"expected edge_step and voxel_size >= 0, got {self.edge_step} and {self.voxel_size}"
            )
        if self.up not in _PLY_AXES:
            raise ValueError(f"expected up out of {', '.join(_PLY_AXES)}, got {self.up!r}")


def save(
    reconstruction: Reconstruction, path: str | Path, format: str, config: ExportConfig = ExportConfig()
) -> list[Path]:
    """Write ``reconstruction`` as ``format``.

    Args:
        path: the file itself when it carries the format's suffix, else a folder that gets documented names.
    Returns:
        the files and folders written.
    Raises:
        ValueError: unknown format, frames out of range, the reconstruction lacks what the format needs, an option that
            the format has no use for, or filters that leave no point of a point cloud.
        GeometryError: a point cloud of frames that have no depth at all.
        OutputError: ``path`` exists already or cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"expected one of {', '.join(FORMATS)} as the format, got {format!r}")
    if config.up != "camera" and format != "ply":
        raise ValueError(f"expected the format ply with up={config.up!r}, got {format}; its axes are fixed")
    if config.per_frame and (format != "glb" or not _is_file(Path(path), ".glb")):
        raise ValueError(
            f"expected a file x.glb with per_frame, got {format} at {path}; a folder has a file per frame"
        )
    path = Path(path)
    with all_or_nothing(
        path, most_bytes(reconstruction, format, config), into_folder=format in _SINGLE_FILES
    ) as place:
        written = FORMATS[format](reconstruction, place, config)
    return [path.parent / file.relative_to(place.parent) for file in written]


_SINGLE_FILES = ("npz", "tum", "kitti", "preview")
"""Formats that write single files, which may lie in a folder with others."""

_BYTES_PER_PIXEL = {
    "npz": 12,
    "exr": 36,
    "png": 2,
    "ply": 27,
    "glb": 16,
    "colmap": 5,
    "nerfstudio": 8,
    "preview": 3,
}


def most_bytes(reconstruction: Reconstruction, format: str, config: ExportConfig) -> int:
    """What an export of all frames takes on disk at most, roughly: for the message when there is no room."""
    height, width = reconstruction.size
    per_frame = height * width * _BYTES_PER_PIXEL.get(format, 0) + 8192
    points = min(COLMAP_POINTS, reconstruction.num_frames * min(config.points_per_frame, height * width))
    per_point = 1000 if format in ("colmap", "nerfstudio") else 0
    return reconstruction.num_frames * per_frame + per_point * points


def conventions(reconstruction: Reconstruction) -> dict[str, str]:
    """What every exported file states, in words."""
    unit = (
        "metres"
        if reconstruction.scale_kind == "metric"
        else "up to scale (one unknown factor for the whole scene)"
    )
    return {
        "camera_axes": "OpenCV: +x right, +y down, +z forward",
        "poses": "c2w, camera to world, column vectors",
        "world": _world(reconstruction),
        "depth": "z-depth (not ray length); NaN = invalid, +inf = sky",
        "unit": unit,
        "intrinsics": "pinhole, pixels of the exported maps, pixel centres at +0.5, no distortion",
    }


def _world(reconstruction: Reconstruction) -> str:
    """Where the world lies, as the poses have it."""
    if reconstruction.c2w is None:
        return "none: there are no poses; points are in the frame of each camera"
    c2w = np.asarray(reconstruction.c2w, np.float64)
    scene = np.zeros(len(c2w), int) if reconstruction.scene is None else np.asarray(reconstruction.scene)
    first = [int(np.flatnonzero(scene == number)[0]) for number in np.unique(scene)]
    if np.abs(c2w[first] - np.eye(4)).max() <= 1e-5:
        numbers = ", ".join(map(str, first))
        return f"the first camera of each scene: the c2w of frame {numbers} is the identity"
    return "that of the poses the result was given; the first camera of the scene is not its origin"


def chosen_frames(
    reconstruction: Reconstruction, config: ExportConfig, *, one_world: bool = False
) -> list[int]:
    """The frames to export, checked.

    Args:
        one_world: the format needs all frames in one world and all cameras known.
    Raises:
        ValueError: out of range, empty, more than one scene for a world format, or no poses.
    """
    total = reconstruction.num_frames
    frames = list(range(total)) if config.frames is None else list(config.frames)
    outside = [frame for frame in frames if not 0 <= frame < total]
    if outside or not frames:
        raise ValueError(
            f"expected frames in [0, {total - 1}], got {outside or 'none'}; see 'geo4d export --frames'"
        )
    scene = reconstruction.scene
    if config.scene is not None:
        if scene is None or config.scene not in scene:
            known = [0] if scene is None else sorted({int(value) for value in scene})
            raise ValueError(f"expected a scene out of {known}, got {config.scene}")
        frames = [frame for frame in frames if scene[frame] == config.scene]
        if not frames:
            raise ValueError(f"none of the chosen frames belongs to scene {config.scene}")
    if one_world:
        if reconstruction.c2w is None:
            raise ValueError(
                "expected a reconstruction with poses, got one without; add them with 'geo4d pose'"
            )
        if scene is not None and len({int(scene[frame]) for frame in frames}) > 1:
            numbers = sorted({int(scene[frame]) for frame in frames})
            raise ValueError(
                f"the chosen frames belong to scenes {numbers}, each in a world of its own; pass --scene"
            )
    return frames


def _is_file(path: Path, *suffixes: str) -> bool:
    return path.suffix.lower() in suffixes


def _frame_notes(reconstruction: Reconstruction, frame: int) -> dict[str, Any]:
    return {
        "frame": frame,
        "source_frame": int(reconstruction.source_frames[frame]),
        "time_s": float(reconstruction.times_s[frame]),
    }


def _write_readme(
    folder: Path, reconstruction: Reconstruction, frames: Sequence[int], files: dict[str, str]
) -> None:
    lines = ["Written by geo4d.", "", "Files:"]
    lines += [f"  {name}: {meaning}" for name, meaning in files.items()]
    lines += ["", "Conventions:"]
    lines += [f"  {name}: {meaning}" for name, meaning in conventions(reconstruction).items()]
    lines += ["", "Frames (number in the reconstruction, number in the source, time in seconds):"]
    lines += [
        f"  {f} {int(reconstruction.source_frames[f])} {float(reconstruction.times_s[f]):.6f}" for f in frames
    ]
    (folder / "README.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _poses(reconstruction: Reconstruction, frames: Sequence[int]) -> np.ndarray:
    assert reconstruction.c2w is not None
    return np.asarray(reconstruction.c2w, np.float64)[list(frames)]


# arrays -----------------------------------------------------------------------------------------------------------


def save_npz(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """One compressed npz, written frame by frame: depth, confidence, cameras, times, conventions."""
    import zipfile

    frames = chosen_frames(reconstruction, config)
    target = path if _is_file(path, ".npz") else path / "geometry.npz"
    dtype = np.dtype(np.float16 if config.precision == "half" else np.float32)
    small: dict[str, np.ndarray] = {
        "intrinsics": np.asarray(reconstruction.intrinsics, np.float64)[frames],
        "times_s": np.asarray(reconstruction.times_s, np.float64)[frames],
        "source_frames": np.asarray(reconstruction.source_frames, np.int64)[frames],
        "frames": np.array(frames, np.int64),
        "scale_kind": np.array(reconstruction.scale_kind),
        "conventions": np.array(json.dumps(conventions(reconstruction))),
        "provenance": np.array(json.dumps(dict(reconstruction.provenance), default=str)),
    }
    if reconstruction.c2w is not None:
        small["c2w"] = _poses(reconstruction, frames)
    if reconstruction.scene is not None:
        small["scene"] = np.asarray(reconstruction.scene)[frames]
    large = {"depth": reconstruction.depth, "confidence": reconstruction.confidence}
    if reconstruction.dynamic is not None:
        large["dynamic"] = reconstruction.dynamic
    with (
        new_file(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        for name, maps in large.items():
            header = {
                "descr": dtype.str,
                "fortran_order": False,
                "shape": (len(frames), *reconstruction.size),
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_2_0(entry, header)
                for frame in frames:
                    entry.write(np.ascontiguousarray(maps[frame], dtype).tobytes())
    return [target]


_EXR_CHANNELS = (
    "R, G, B: colour in linear light, Rec. 709 primaries; Z: depth; moving.V: probability in [0, 1] that the pixel "
    "moves; confidence.V: in [0, 1]; position.X, .Y, .Z: world points"
)


def save_depth_exr(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """EXR per frame: colour, depth, what moves, confidence, and with poses world points.

    Names as Blender 4.5 and Nuke 16 read them: ``R``, ``G``, ``B`` (linear light; Blender's Combined, Nuke's rgba), ``Z``
    (Blender's Depth, Nuke's depth.Z), and layers ``moving.V``, ``confidence.V``, ``position.X/Y/Z``.
    """
    frames = chosen_frames(reconstruction, config)

    def write(target: Path, frame: int) -> None:
        channels = {
            "Z": np.asarray(reconstruction.depth[frame], np.float32),
            "confidence.V": np.asarray(reconstruction.confidence[frame], np.float32),
        }
        if reconstruction.rgb is not None:
            linear = srgb_to_linear(np.asarray(reconstruction.rgb[frame], np.float32))
            channels |= {name: linear[..., i] for i, name in enumerate("RGB")}
        if reconstruction.dynamic is not None:
            channels["moving.V"] = np.asarray(reconstruction.dynamic[frame], np.float32)
        if reconstruction.c2w is not None:
            points = reconstruction.points("world")[frame]
            channels |= {f"position.{axis}": points[..., i] for i, axis in enumerate("XYZ")}
        attributes: dict[str, str | float | int] = {
            f"geo4d_{k}": v for k, v in conventions(reconstruction).items()
        }
        attributes["geo4d_channels"] = _EXR_CHANNELS
        attributes |= {f"geo4d_{k}": v for k, v in _frame_notes(reconstruction, frame).items()}
        attributes["geo4d_intrinsics_matrix"] = json.dumps(
            np.asarray(reconstruction.intrinsics[frame]).tolist()
        )
        if reconstruction.c2w is not None:
            attributes["geo4d_c2w_matrix"] = json.dumps(np.asarray(reconstruction.c2w[frame]).tolist())
        save_exr(target, channels, precision=config.precision, attributes=attributes)

    if _is_file(path, ".exr"):
        if len(frames) != 1:
            raise ValueError(
                f"expected one frame for the file {path}, got {len(frames)}; pass --frames N or a folder"
            )
        write(path, frames[0])
        return [path]
    with new_folder(path) as folder:
        for frame in frames:
            write(folder / f"depth_{frame:06d}.exr", frame)
        meaning = f"{_EXR_CHANNELS}; {config.precision} precision"
        _write_readme(folder, reconstruction, frames, {"depth_FRAME.exr": meaning})
    return [path]


def save_depth_png(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """16-bit PNG per frame: depth = value * step, 0 = invalid, 65535 = sky; ``depth.json`` holds the step."""
    frames = chosen_frames(reconstruction, config)
    if _is_file(path, ".png") and len(frames) != 1:
        raise ValueError(
            f"expected one frame for the file {path}, got {len(frames)}; pass --frames N or a folder"
        )
    largest = 0.0
    for frame in frames:
        depth = reconstruction.depth[frame]
        finite = depth[np.isfinite(depth)]
        largest = max(largest, float(finite.max()) if finite.size else 0.0)
    step = largest / 65534 if largest > 0 else 1.0

    def write(target: Path, frame: int) -> None:
        depth = np.asarray(reconstruction.depth[frame], np.float64)
        values = np.where(np.isfinite(depth), np.maximum(np.round(depth / step), 1), np.nan)
        save_png16(target, np.where(np.isposinf(depth), 65535.0, values))

    notes: dict[str, Any] = {
        "depth_step": step,
        "invalid_value": 0,
        "sky_value": 65535,
        "conventions": conventions(reconstruction),
        "intrinsics": np.asarray(reconstruction.intrinsics)[frames].tolist(),
        "frames": [_frame_notes(reconstruction, frame) for frame in frames],
    }
    if _is_file(path, ".png"):
        write(path, frames[0])
        sidecar = path.with_suffix(".json")
        with new_file(sidecar) as temporary:
            temporary.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        return [path, sidecar]
    with new_folder(path) as folder:
        for frame in frames:
            write(folder / f"depth_{frame:06d}.png", frame)
        (folder / "depth.json").write_text(json.dumps(notes, indent=1), encoding="utf-8")
        meaning = "16-bit depth = value * depth_step of depth.json; 0 = invalid, 65535 = sky"
        _write_readme(
            folder,
            reconstruction,
            frames,
            {"depth_FRAME.png": meaning, "depth.json": "step, cameras, frames"},
        )
    return [path]


# points -----------------------------------------------------------------------------------------------------------


def resolved(reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig) -> ExportConfig:
    """``config`` with the default confidence threshold filled in."""
    if config.min_confidence is not None:
        return config
    threshold = default_confidence_threshold(reconstruction, frames, edge_step=config.edge_step)
    return replace(config, min_confidence=threshold)


def iter_point_clouds(
    reconstruction: Reconstruction,
    frames: Sequence[int],
    config: ExportConfig,
    share: KeptShare | None = None,
) -> Iterator[PointCloud]:
    """World points of every frame that pass the confidence, edge and voxel filters, one cloud a frame.

    Args:
        share: counts what the confidence and edge filters keep.
    """
    config = resolved(reconstruction, frames, config)
    assert config.min_confidence is not None
    frame_of_reference: Literal["camera", "world"] = "world" if reconstruction.has_poses else "camera"
    points = reconstruction.points(frame_of_reference)
    voxels = VoxelFilter(config.voxel_size) if config.voxel_size > 0 else None
    for frame in frames:
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        confidence = np.asarray(reconstruction.confidence[frame], np.float32)
        keep = kept_mask(depth, confidence, min_confidence=config.min_confidence, edge_step=config.edge_step)
        if share is not None:
            share.add(depth, confidence, keep, _dynamic(reconstruction, frame))
        positions = points[frame][keep]
        colours = None
        if reconstruction.rgb is not None:
            colours = np.round(255 * np.clip(reconstruction.rgb[frame][keep], 0, 1)).astype(np.uint8)
        cloud = PointCloud(
            positions=positions.astype(np.float32),
            colours=colours,
            confidence=confidence[keep].astype(np.float32),
            frames=np.full(len(positions), frame, np.int32),
        )
        yield voxels(cloud) if voxels else cloud


def _dynamic(reconstruction: Reconstruction, frame: int) -> np.ndarray | None:
    return None if reconstruction.dynamic is None else np.asarray(reconstruction.dynamic[frame], np.float32)


def _counted(
    reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig
) -> Iterator[PointCloud]:
    """The clouds of ``iter_point_clouds``; at the end says how much was kept, and refuses a cloud without any point."""
    config = resolved(reconstruction, frames, config)
    assert config.min_confidence is not None
    share = KeptShare(config.min_confidence, config.edge_step)
    empty = []
    for frame, cloud in zip(frames, iter_point_clouds(reconstruction, frames, config, share), strict=True):
        if cloud.num_points == 0:
            empty.append(frame)
        yield cloud
    if share.kept == 0:
        raise _no_points(share, len(frames))
    share.say(log)
    if empty and not config.voxel_size:
        log.warning("%d of %d frames have no points: %s", len(empty), len(frames), _few(empty))


def _no_points(share: KeptShare, num_frames: int) -> Exception:
    if share.finite == 0:
        return GeometryError(
            f"expected frames with depth, but none of the {num_frames} chosen ones has any; see 'geo4d report'"
        )
    return ValueError(f"no point is left of {share.finite} pixels with depth: {share.advice()}")


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def _thinned(clouds: Iterator[PointCloud], num_frames: int, config: ExportConfig) -> Iterator[PointCloud]:
    """The clouds with at most ``max_points`` points together; says once that it thins."""
    limit = max(config.max_points // num_frames, 1) if config.max_points else 0
    rng = np.random.default_rng(config.seed)
    said = False
    for cloud in clouds:
        if 0 < limit < cloud.num_points:
            if not said:
                log.warning(
                    "thinned to %d points in all; --max-points 0 keeps every point, --voxel-size thins evenly in space",
                    config.max_points,
                )
                said = True
            cloud = cloud.select(np.sort(rng.choice(cloud.num_points, limit, replace=False)))
        yield cloud


def save_points_ply(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """Binary PLY: one file with all frames, or a folder with one file a frame."""
    single = _is_file(path, ".ply")
    frames = chosen_frames(
        reconstruction, config, one_world=single and (config.frames is None or len(config.frames) > 1)
    )
    words = [f"{name}: {meaning}" for name, meaning in conventions(reconstruction).items()]
    words.append(f"points are in the {'world' if reconstruction.has_poses else 'camera'} frame")
    rotation, axes = _PLY_AXES[config.up]
    words.append(f"axes of the points of this file: {axes}")
    if config.up != "camera":
        words.append("up is that of the first camera of the scene, not of gravity")

    def clouds() -> Iterator[PointCloud]:
        for cloud in _counted(reconstruction, frames, config):
            yield replace(cloud, positions=cloud.positions @ rotation.T.astype(np.float32))

    if single:
        listed = " ".join(
            f"{f}:{int(reconstruction.source_frames[f])}:{float(reconstruction.times_s[f]):.6f}"
            for f in frames
        )
        save_ply(
            path,
            _thinned(clouds(), len(frames), config),
            [*words, f"at most {config.max_points} points" if config.max_points else "all points",
             f"frame:source_frame:time_s {listed}"],
        )  # fmt: skip
        return [path]
    with new_folder(path) as folder:
        for frame, cloud in zip(frames, clouds(), strict=True):
            notes = [f"{name}: {value}" for name, value in _frame_notes(reconstruction, frame).items()]
            save_ply(folder / f"points_{frame:06d}.ply", [cloud], words + notes)
        _write_readme(
            folder, reconstruction, frames, {"points_FRAME.ply": "points, colours, confidence of one frame"}
        )
    return [path]


def save_points_glb(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """GLB point cloud (glTF axes: +y up): one file with all frames, or a folder with one file a frame."""
    single = _is_file(path, ".glb")
    frames = chosen_frames(
        reconstruction, config, one_world=single and (config.frames is None or len(config.frames) > 1)
    )
    notes: dict[str, Any] = {
        **conventions(reconstruction),
        "axes_of_this_file": "glTF: +x right, +y up, +z backward",
        "colours": "COLOR_0 in linear light",
    }
    if single:
        clouds = _thinned(_counted(reconstruction, frames, config), len(frames), config)
        nodes = [(f"frame_{f:06d}", _frame_notes(reconstruction, f)) for f in frames]
        save_glb(
            path,
            clouds,
            {**notes, "frames": [note for _, note in nodes]},
            nodes=nodes if config.per_frame else None,
        )
        return [path]
    with new_folder(path) as folder:
        for frame, cloud in zip(frames, _counted(reconstruction, frames, config), strict=True):
            save_glb(
                folder / f"points_{frame:06d}.glb", cloud, {**notes, **_frame_notes(reconstruction, frame)}
            )
        _write_readme(
            folder, reconstruction, frames, {"points_FRAME.glb": "points and colours of one frame, glTF axes"}
        )
    return [path]


# trajectories -----------------------------------------------------------------------------------------------------


def save_trajectory_tum(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """TUM trajectory: ``t tx ty tz qx qy qz qw``, c2w."""
    frames = chosen_frames(reconstruction, config, one_world=True)
    target = path if _is_file(path, ".txt", ".tum") else path / "trajectory_tum.txt"
    comments = [f"{name}: {meaning}" for name, meaning in conventions(reconstruction).items()]
    comments.append("source frames: " + " ".join(str(int(reconstruction.source_frames[f])) for f in frames))
    comments.append("time_s tx ty tz qx qy qz qw")
    save_tum(
        target,
        np.asarray(reconstruction.times_s, np.float64)[frames],
        _poses(reconstruction, frames),
        comments,
    )
    return [target]


def save_trajectory_kitti(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """KITTI poses (12 numbers a row, c2w) and, beside them, the times and conventions the format has no room for."""
    frames = chosen_frames(reconstruction, config, one_world=True)
    target = path if _is_file(path, ".txt", ".kitti") else path / "trajectory_kitti.txt"
    save_kitti_poses(target, _poses(reconstruction, frames))
    sidecar = target.with_suffix(".json")
    notes = {
        "conventions": conventions(reconstruction),
        "frames": [_frame_notes(reconstruction, f) for f in frames],
    }
    with new_file(sidecar) as temporary:
        temporary.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    return [target, sidecar]


# scenes for other tools -------------------------------------------------------------------------------------------


def _require_rgb(reconstruction: Reconstruction, what: str) -> Any:
    if reconstruction.rgb is None:
        raise ValueError(
            f"{what} includes the images, but the source video of this reconstruction cannot be read"
        )
    return reconstruction.rgb


def save_scene_colmap(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """COLMAP folder: ``images/``, ``masks/`` and ``sparse/0/`` (binary and text) with points and their observations.

    Points are sampled from static, confident pixels of every frame and observed in those of the ``COLMAP_REACH`` frames
    before and after whose depth agrees within 3 %, so that tracks and colours are what COLMAP-based trainers expect.
    Masks are named as COLMAP 4.2 looks for them (``--ImageReader.mask_path``): the picture's name with ``.png`` added,
    black where something moves.
    """
    frames = chosen_frames(reconstruction, config, one_world=True)
    _require_rgb(reconstruction, "the COLMAP export")
    names = [f"frame_{frame:06d}.png" for frame in frames]
    height, width = reconstruction.size
    intrinsics = np.asarray(reconstruction.intrinsics, np.float64)[frames]
    c2w = _poses(reconstruction, frames)
    w2c = invert_poses(c2w)
    with new_folder(path) as folder:
        points, colours, owners = [], [], []
        for row, (frame, picture, xyz, rgb) in enumerate(_iter_static_points(reconstruction, frames, config)):
            save_image(folder / "images" / names[row], picture)
            if reconstruction.dynamic is not None:
                save_mask(folder / "masks" / f"{names[row]}.png", _static(reconstruction, frame))
            points.append(xyz)
            colours.append(rgb)
            owners.append(np.full(len(xyz), row))
        world, owner = np.concatenate(points), np.concatenate(owners)
        seen_points, seen_images, seen_pixels = [], [], []
        for row, frame in enumerate(frames):
            near = slice(*np.searchsorted(owner, [row - COLMAP_REACH, row + COLMAP_REACH + 1]))
            camera = world[near] @ w2c[row, :3, :3].T + w2c[row, :3, 3]
            z = np.where(camera[:, 2] > 0, camera[:, 2], np.nan)
            homogeneous = camera @ intrinsics[row].T
            x, y = homogeneous[:, 0] / z, homogeneous[:, 1] / z
            inside = np.isfinite(z) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = np.flatnonzero(inside)
            depth = np.asarray(reconstruction.depth[frame], np.float64)[
                y[index].astype(int), x[index].astype(int)
            ]
            agrees = np.abs(depth - z[index]) <= 0.03 * z[index]
            agrees |= owner[near][index] == row
            index = index[agrees]
            seen_points.append(index + near.start)
            seen_images.append(np.full(len(index), row))
            seen_pixels.append(np.stack([x[index], y[index]], axis=1))
        model = ColmapModel(
            names=names,
            intrinsics=intrinsics,
            sizes=[(height, width)] * len(frames),
            c2w=c2w,
            points=world,
            colours=np.concatenate(colours),
            point_errors=np.zeros(len(world)),
            track_points=np.concatenate(seen_points),
            track_images=np.concatenate(seen_images),
            track_pixels=np.concatenate(seen_pixels),
        )
        save_colmap(folder / "sparse" / "0", model)
        files = {
            "images/": "pictures at the size of the maps",
            "sparse/0/": "COLMAP model, binary and text (w2c)",
        }
        if reconstruction.dynamic is not None:
            files["masks/"] = "NAME.png.png for images/NAME.png: 0 (ignored) where something moves, else 255"
        _write_readme(folder, reconstruction, frames, files)
    return [path]


def _static(reconstruction: Reconstruction, frame: int) -> np.ndarray:
    """bool [H, W]: True where nothing is known to move."""
    dynamic = _dynamic(reconstruction, frame)
    return np.ones(reconstruction.size, bool) if dynamic is None else ~(dynamic >= MOVING)


def _iter_static_points(
    reconstruction: Reconstruction, frames: Sequence[int], config: ExportConfig
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Frame, picture, and world points [N, 3] float64 with colours [N, 3] uint8, sampled where nothing moves.

    At the end says how much of the depth passed the filters. Without any point it warns: cameras and pictures are of use
    alone.
    """
    config = resolved(reconstruction, frames, config)
    assert config.min_confidence is not None
    pictures = reconstruction.rgb
    assert pictures is not None
    share = KeptShare(config.min_confidence, config.edge_step)
    rng = np.random.default_rng(config.seed)
    per_frame = min(config.points_per_frame, -(-COLMAP_POINTS // len(frames)))
    width = reconstruction.size[1]
    c2w = _poses(reconstruction, frames)
    static = 0
    for row, frame in enumerate(frames):
        picture = np.asarray(pictures[frame], np.float32)
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        confidence = np.asarray(reconstruction.confidence[frame], np.float32)
        keep = kept_mask(depth, confidence, min_confidence=config.min_confidence, edge_step=config.edge_step)
        share.add(depth, confidence, keep, None)
        pixels = np.flatnonzero(keep & _static(reconstruction, frame))
        static += len(pixels)
        pixels = rng.choice(pixels, min(per_frame, len(pixels)), replace=False)
        z = depth.astype(np.float64).reshape(-1)[pixels]
        xy = np.stack([pixels % width + 0.5, pixels // width + 0.5, np.ones(len(pixels))], axis=1)
        inverse = np.linalg.inv(np.asarray(reconstruction.intrinsics[frame], np.float64))
        camera = (xy @ inverse.T) * z[:, None]
        world = camera @ c2w[row, :3, :3].T + c2w[row, :3, 3]
        colours = np.round(255 * np.clip(picture.reshape(-1, 3)[pixels], 0, 1)).astype(np.uint8)
        yield frame, picture, world, colours
    if static == 0 and share.kept:
        log.warning("no points: all pixels that pass the filters move")
    elif static == 0:
        log.warning("no points: %s", _no_points(share, len(frames)))
    else:
        share.say(log)
        log.info("points were sampled where nothing moves: %s", f"{static} of {share.kept} of these pixels")


def save_scene_nerfstudio(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """nerfstudio folder, as its dataparser (1.1.5) reads it without any flag.

    ``transforms.json`` (OpenGL camera axes), ``images/``, ``depth/`` (16-bit, value times 0.001 in the unit of the poses;
    0 where there is none), ``masks/`` (0 where something moves) and ``sparse_pc.ply``, the points that splatting starts
    from. Poses, points and depth are scaled by one factor, stated in ``transforms.json``, so that 16 bits hold the depth.
    """
    frames = chosen_frames(reconstruction, config, one_world=True)
    _require_rgb(reconstruction, "the nerfstudio export")
    scale = nerfstudio_scale(reconstruction, frames)
    masked = reconstruction.dynamic is not None
    names = [f"frame_{frame:06d}.png" for frame in frames]
    c2w = _poses(reconstruction, frames)
    c2w[:, :3, 3] *= scale
    with_depth = too_far = 0
    with new_folder(path) as folder:
        points, colours = [], []
        for row, (frame, picture, xyz, rgb) in enumerate(_iter_static_points(reconstruction, frames, config)):
            save_image(folder / "images" / names[row], picture)
            if masked:
                save_mask(folder / "masks" / names[row], _static(reconstruction, frame))
            depth = np.asarray(reconstruction.depth[frame], np.float64)
            steps = np.maximum(np.round(depth * scale / NERFSTUDIO_DEPTH_UNIT), 1)
            inside = np.isfinite(depth) & (steps <= 65535)
            save_png16(folder / "depth" / names[row], np.where(inside, steps, 0))
            with_depth += int(np.isfinite(depth).sum())
            too_far += int(np.isfinite(depth).sum() - inside.sum())
            points.append(xyz * scale)
            colours.append(rgb)
        cloud = PointCloud(np.concatenate(points).astype(np.float32), np.concatenate(colours))
        if cloud.num_points:
            comments = [
                "points in the world and unit of the poses of transforms.json",
                f"unit: 1 of the result is {scale:g} here",
            ]
            save_ply(folder / "sparse_pc.ply", [cloud], comments)
        if too_far:
            log.warning(
                "%.2g %% of the pixels with depth are left out: farther than %d times the median, 16 bits do not reach",
                100 * too_far / with_depth,
                NERFSTUDIO_REACH,
            )
        if np.ptp(c2w[:, :3, 3], axis=0).max() == 0:
            log.warning(
                "the camera does not move: nerfstudio divides by the extent of the path; "
                "give its dataparser --auto-scale-poses False"
            )
        model = NerfstudioModel(
            files=[f"images/{name}" for name in names],
            depth_files=[f"depth/{name}" for name in names],
            mask_files=[f"masks/{name}" for name in names] if masked else [],
            ply_file="sparse_pc.ply" if cloud.num_points else None,
            intrinsics=np.asarray(reconstruction.intrinsics, np.float64)[frames],
            sizes=[reconstruction.size] * len(frames),
            c2w=c2w,
            depth_unit=NERFSTUDIO_DEPTH_UNIT,
            times_s=np.asarray(reconstruction.times_s, np.float64)[frames],
        )
        notes: dict[str, Any] = {
            **conventions(reconstruction),
            "camera_axes_of_this_file": "OpenGL: +x right, +y up, +z backward; the world keeps its axes",
            "scale_factor": scale,
            "unit_of_this_file": "poses, points and depth of the result times scale_factor",
            "depth": "z-depth (not ray length): value times 0.001 in the unit of the poses; 0 = sky, invalid or too far",
            "masks": "0 = moving, ignored; 255 = static",
            "source_frames": [int(reconstruction.source_frames[frame]) for frame in frames],
        }
        save_nerfstudio(folder / "transforms.json", model, {"geo4d": notes})
        files = {
            "transforms.json": "cameras",
            "images/": "pictures at the size of the maps",
            "depth/": "value * 0.001 = z-depth in the unit of the poses; 0 = none",
            "sparse_pc.ply": "points sampled where nothing moves, in the world and unit of the poses",
        }
        if masked:
            files["masks/"] = "0 (ignored) where something moves, else 255"
        files["scale"] = f"poses, points and depth are those of the result times {scale:g}"
        _write_readme(folder, reconstruction, frames, files)
    return [path]


def nerfstudio_scale(reconstruction: Reconstruction, frames: Sequence[int]) -> float:
    """The factor for poses, points and depth with which steps of 0.001 in 16 bits hold the depth of ``frames``.

    The farthest depth, or ``NERFSTUDIO_REACH`` times the median where that is nearer, comes just below 65.535. Metres
    stay metres where that fits and half of the pixels are farther than a quarter of a metre.
    """
    largest, sample = 0.0, []
    for frame in frames:
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        finite = depth[np.isfinite(depth)]
        if finite.size:
            largest = max(largest, float(finite.max()))
            sample.append(finite[:: max(1, finite.size // 4096)])
    if largest <= 0:
        log.warning("none of the %d frames has depth; the depth images are empty", len(frames))
        return 1.0
    median = float(np.median(np.concatenate(sample)))
    reach = 65535 * NERFSTUDIO_DEPTH_UNIT
    far = min(largest, NERFSTUDIO_REACH * median)
    if reconstruction.scale_kind == "metric" and far <= reach and median >= 0.25:
        return 1.0
    exact = reach / far
    digits = 10.0 ** (
        np.floor(np.log10(exact)) - 2
    )  # three digits, rounded down, read better and lose nothing
    return float(f"{np.floor(exact / digits) * digits:.3g}")


def save_preview(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """Side-by-side mp4 (VP9 or AV1): picture, depth, confidence, every frame at its time in the source."""
    from geo4d.formats.movies import save_movie
    from geo4d.viewer.colors import confidence_to_colours, depth_to_colours, disparity_range, to_uint8

    frames = chosen_frames(reconstruction, config)
    target = path if _is_file(path, ".mp4") else path / "preview.mp4"
    sample = [np.asarray(reconstruction.depth[f])[::4, ::4] for f in frames[:: max(1, len(frames) // 16)]]
    limits = disparity_range(np.stack(sample).astype(np.float32))

    def pictures() -> Iterator[np.ndarray]:
        for frame in frames:
            panels = (
                []
                if reconstruction.rgb is None
                else [to_uint8(np.asarray(reconstruction.rgb[frame], np.float32))]
            )
            panels.append(depth_to_colours(np.asarray(reconstruction.depth[frame], np.float32), limits))
            panels.append(confidence_to_colours(np.asarray(reconstruction.confidence[frame], np.float32)))
            yield np.concatenate(panels, axis=0 if reconstruction.size[1] > 2 * reconstruction.size[0] else 1)

    save_movie(target, pictures(), times_s=np.asarray(reconstruction.times_s, np.float64)[frames])
    return [target]


FORMATS: dict[str, Callable[[Reconstruction, Path, ExportConfig], list[Path]]] = {
    "npz": save_npz,
    "exr": save_depth_exr,
    "png": save_depth_png,
    "ply": save_points_ply,
    "glb": save_points_glb,
    "tum": save_trajectory_tum,
    "kitti": save_trajectory_kitti,
    "colmap": save_scene_colmap,
    "nerfstudio": save_scene_nerfstudio,
    "preview": save_preview,
}
