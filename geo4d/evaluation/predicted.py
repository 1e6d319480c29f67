"""What is scored: a reconstruction of ours, or a folder of anyone's predictions in a documented simple layout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.datasets.pieces import associate_nearest, list_files, map_frames, natural_key
from geo4d.datasets.readers.synthetic import DEPTH_SUFFIXES, load_array, load_depth_file, load_intrinsics
from geo4d.errors import InputError
from geo4d.evaluation.protocols import Quantity
from geo4d.formats.arrays import load_npz, npz_shapes
from geo4d.formats.cameras import load_tum
from geo4d.formats.images import load_exr, load_png16
from geo4d.types import FrameArray, LazyFrames, Reconstruction, ScaleKind


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions for some frames of a sequence.

    Attributes:
        frames: [P] index in the sequence of every predicted frame.
        size: (height, width) of the maps and of ``intrinsics``.
        maps: [P, h, w] values of ``quantity``, NaN where there is none, or None.
        quantity: ``depth`` (z-depth) or ``disparity``.
        scale_kind: ``affine`` values may have any sign; otherwise values that are not positive are missing.
        points: [P, h, w, 3] camera-frame points, or None; then points are ``maps`` (depth) unprojected.
        intrinsics: [P, 3, 3], or None.
        c2w: [P, 4, 4], NaN for a frame without pose, or None.
        confidence: [P, h, w] probability that a value is within 10 % after the scene's one factor, or None.
        dynamic: [P, h, w] probability that a pixel shows something moving, or None.
        scene: [P] number of the world that a frame's unit belongs to, or None where all have one.
        provenance: JSON values about the maker.
        warnings: what was odd about the input.
    """

    frames: np.ndarray
    size: tuple[int, int]
    maps: FrameArray | None = None
    quantity: Quantity = "depth"
    scale_kind: ScaleKind = "scale"
    points: FrameArray | None = None
    intrinsics: np.ndarray | None = None
    c2w: np.ndarray | None = None
    confidence: FrameArray | None = None
    dynamic: FrameArray | None = None
    scene: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def from_reconstruction(reconstruction: Reconstruction) -> Predicted:
    """A reconstruction as something to score; ``source_frames`` are taken for frame numbers of the sequence.

    Cameras of another scene than the longest one have a world of their own, so they count as missing.
    """
    warnings = []
    c2w = None if reconstruction.c2w is None else np.asarray(reconstruction.c2w, np.float64)
    if c2w is not None and reconstruction.scene is not None and len(np.unique(reconstruction.scene)) > 1:
        scenes, counts = np.unique(reconstruction.scene, return_counts=True)
        other = reconstruction.scene != scenes[counts.argmax()]
        c2w = np.where(other[:, None, None], np.nan, c2w)
        warnings.append(
            f"{len(scenes)} scenes: cameras of the longest are scored, {int(other.sum())} frames have none"
        )
    return Predicted(
        frames=np.asarray(reconstruction.source_frames),
        size=reconstruction.size,
        maps=reconstruction.depth,
        quantity="depth",
        scale_kind=reconstruction.scale_kind,
        intrinsics=np.asarray(reconstruction.intrinsics, np.float64),
        c2w=c2w,
        confidence=reconstruction.confidence,
        dynamic=reconstruction.dynamic,
        scene=None if reconstruction.scene is None else np.asarray(reconstruction.scene),
        provenance=reconstruction.provenance,
        warnings=tuple(warnings),
    )


def load_predictions(folder: Path | str, times_s: np.ndarray) -> Predicted:
    """Read predictions for one sequence from ``folder``.

    Layout: ``depth/`` or ``disparity/`` with one .npz (key ``depth`` or ``disparity``), .npy, .exr or 16-bit .png
    (millimetres for depth, value / 65535 for disparity) per frame, whose names end in the frame index or count as many
    as the frames; or one ``maps.npz`` with keys ``depth`` or ``disparity`` [T, h, w] or ``point_map`` [T, h, w, 3];
    ``poses.txt`` (TUM, ``c2w``; stamps of the sequence, or 0, 1, 2 ..); ``intrinsics.txt`` (fx fy cx cy);
    ``predictions.json`` with ``scale_kind`` and anything about the maker.

    Args:
        times_s: stamps of the sequence, to place poses and count frames.
    Raises:
        InputError: nothing usable, damaged files, or stamps that go back.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"expected predictions in the folder {folder}, found none; see docs/protocols.md")
    facts = _facts(folder)
    scale_kind = facts.get("scale_kind", "scale")
    if scale_kind not in ("metric", "scale", "affine"):
        raise InputError(
            f"expected scale_kind metric, scale or affine in {folder}/predictions.json, got {scale_kind!r}"
        )
    maps, points, quantity, frames = _load_maps(folder, len(times_s))
    warnings: list[str] = []
    c2w = None
    if (folder / "poses.txt").is_file():
        c2w, warning = _load_poses(folder / "poses.txt", times_s)
        warnings += warning
    if maps is None and points is None and c2w is None:
        raise InputError(
            f"expected depth/, disparity/, maps.npz or poses.txt in {folder}, found none of them; see docs/protocols.md"
        )
    arrays = [array for array in (maps, points) if array is not None]
    shape = arrays[0].shape if arrays else (0, 0, 0)
    intrinsics = None
    if (folder / "intrinsics.txt").is_file():
        intrinsics = load_intrinsics(folder / "intrinsics.txt", len(frames))
    if maps is None and points is not None:
        array = points
        maps = LazyFrames(array.shape[:3], np.dtype(np.float32), lambda t: np.asarray(array[t])[..., 2])
    if c2w is not None:
        c2w = c2w[frames]
    return Predicted(
        frames=frames,
        size=(int(shape[1]), int(shape[2])),
        maps=maps,
        quantity=quantity,
        scale_kind=scale_kind,
        points=points,
        intrinsics=intrinsics,
        c2w=c2w,
        provenance={"predictions": folder.name, **facts},
        warnings=tuple(warnings),
    )


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "predictions.json"
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"expected JSON in {path}, got: {error}") from error
    if not isinstance(facts, dict):
        raise InputError(f"expected a JSON object in {path}, got {type(facts).__name__}")
    return facts


def _load_maps(
    folder: Path, num_frames: int
) -> tuple[FrameArray | None, FrameArray | None, Quantity, np.ndarray]:
    everything = np.arange(num_frames)
    if (folder / "maps.npz").is_file():
        return _load_stack(folder / "maps.npz", num_frames)
    for quantity in ("depth", "disparity"):
        files = list_files(folder / quantity, DEPTH_SUFFIXES)
        if not files:
            continue
        frames = everything if len(files) == num_frames else _frame_numbers(files, num_frames)
        load = load_depth_file if quantity == "depth" else _load_disparity_file
        return map_frames(files, load), None, quantity, frames  # type: ignore[return-value]
    return None, None, "depth", everything


def _load_stack(
    path: Path, num_frames: int
) -> tuple[FrameArray | None, FrameArray | None, Quantity, np.ndarray]:
    shapes = npz_shapes(path)
    keys = [key for key in ("disparity", "point_map", "depth") if key in shapes]
    if not keys:
        raise InputError(f"expected a key depth, disparity or point_map in {path}, got {', '.join(shapes)}")
    if shapes[keys[0]] and shapes[keys[0]][0] > num_frames:
        raise InputError(
            f"expected maps of at most {num_frames} frames in {path}, got {keys[0]} of shape {shapes[keys[0]]}"
        )
    content = load_npz(path, {keys[0], "mask", "frames"})
    values = np.asarray(content[keys[0]], np.float32)
    if keys[0] == "point_map" and "mask" in content:
        values = np.where(content["mask"][..., None], values, np.nan)
    frames = np.asarray(content["frames"]) if "frames" in content else np.arange(len(values))
    expected = 4 if keys[0] == "point_map" else 3
    if values.ndim != expected or len(frames) != len(values):
        raise InputError(
            f"expected {keys[0]} of {expected} axes with one frame number each in {path}, got {values.shape}"
        )
    if len(frames) and (
        frames.min() < 0 or frames.max() >= num_frames or len(np.unique(frames)) != len(frames)
    ):
        raise InputError(
            f"expected different frame numbers in [0, {num_frames}) in {path}, got up to {frames.max()}"
        )
    if keys[0] == "point_map":
        return None, values, "depth", frames
    return values, None, keys[0], frames  # type: ignore[return-value]


def _frame_numbers(files: list[Path], num_frames: int) -> np.ndarray:
    numbers = []
    for path in files:
        digits = [piece for kind, piece in natural_key(path.stem) if kind == 0]
        numbers.append(int(digits[-1]) if digits else -1)
    result = np.array(numbers)
    if result.min() < 0 or result.max() >= num_frames or len(np.unique(result)) != len(result):
        raise InputError(
            f"expected {num_frames} maps, or names that end in different frame numbers below {num_frames}, got "
            f"{len(files)} files from {files[0].name} to {files[-1].name} in {files[0].parent}"
        )
    return result


def _load_disparity_file(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return load_png16(path) / 65535
    if path.suffix == ".exr":
        channels = load_exr(path)
        return next(iter(channels.values())).astype(np.float32)
    return load_array(path, "disparity")


def _load_poses(path: Path, times_s: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Poses laid on the frames of the sequence: by stamp; or by row if the stamps count 0, 1, 2 .. or are as many."""
    stamps, poses = load_tum(path)
    backward = np.flatnonzero(np.diff(stamps) <= 0)
    if backward.size:
        raise InputError(
            f"expected increasing stamps in {path}, but row {backward[0] + 2} ({stamps[backward[0] + 1]}) does not "
            f"follow row {backward[0] + 1} ({stamps[backward[0]]})"
        )
    result = np.full((len(times_s), 4, 4), np.nan)
    counted = np.array_equal(stamps, np.round(stamps)) and stamps.min() >= 0 and stamps.max() < len(times_s)
    nearest = associate_nearest(times_s, stamps, 0.02)
    matched = nearest >= 0
    if matched.sum() < len(stamps) and counted:
        result[stamps.astype(int)] = poses
        return result, []
    if not matched.any() and len(stamps) == len(times_s):
        result[:] = poses
        return result, ["stamps of poses.txt fit no frame; rows were taken in order"]
    result[matched] = poses[nearest[matched]]
    unused = len(stamps) - len(np.unique(nearest[matched]))
    return result, [f"{unused} of {len(stamps)} predicted poses belong to no frame"] if unused else []
