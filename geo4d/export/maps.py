"""Maps and pictures: npz, EXR, 16-bit PNG."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export.common import chosen_frames, conventions, frame_notes, is_file, poses_of, write_readme
from geo4d.export.config import ExportConfig
from geo4d.formats.colours import srgb_to_linear
from geo4d.formats.files import new_file, new_folder
from geo4d.formats.images import save_exr, save_png16
from geo4d.types import Reconstruction


def save_npz(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """One compressed npz, written frame by frame: depth, confidence, cameras, times, conventions."""
    import zipfile

    frames = chosen_frames(reconstruction, config)
    dtype = np.dtype(np.float16 if config.precision == "half" else np.float32)
    small: dict[str, np.ndarray] = {
        "intrinsics": np.asarray(reconstruction.intrinsics, np.float64)[frames],
        "times_s": np.asarray(reconstruction.times_s, np.float64)[frames],
        "source_frames": np.asarray(reconstruction.source_frames, np.int64)[frames],
        "frames": np.array(frames, np.int64),
        "scale_kind": np.array(reconstruction.scale_kind),
        "conventions": np.array(json.dumps(conventions(reconstruction, config))),
        "provenance": np.array(json.dumps(dict(reconstruction.provenance), default=str)),
    }
    if reconstruction.c2w is not None:
        small["c2w"] = poses_of(reconstruction, frames)
    if reconstruction.scene is not None:
        small["scene"] = np.asarray(reconstruction.scene)[frames]
    large = {"depth": reconstruction.depth, "confidence": reconstruction.confidence}
    if reconstruction.dynamic is not None:
        large["dynamic"] = reconstruction.dynamic
    with (
        new_file(path) as temporary,
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
    return [path]


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
            f"geo4d_{k}": v for k, v in conventions(reconstruction, config).items()
        }
        attributes["geo4d_channels"] = _EXR_CHANNELS
        attributes |= {f"geo4d_{k}": v for k, v in frame_notes(reconstruction, frame).items()}
        attributes["geo4d_intrinsics_matrix"] = json.dumps(
            np.asarray(reconstruction.intrinsics[frame]).tolist()
        )
        if reconstruction.c2w is not None:
            attributes["geo4d_c2w_matrix"] = json.dumps(np.asarray(reconstruction.c2w[frame]).tolist())
        save_exr(target, channels, precision=config.precision, attributes=attributes)

    if is_file(path, ".exr"):
        if len(frames) != 1:
            raise ValueError(
                f"expected one frame for the file {path.name}, got {len(frames)}; pass --frames N or a folder"
            )
        write(path, frames[0])
        return [path]
    with new_folder(path) as folder:
        for frame in frames:
            write(folder / f"depth_{frame:06d}.exr", frame)
        meaning = f"{_EXR_CHANNELS}; {config.precision} precision"
        write_readme(folder, reconstruction, config, frames, {"depth_FRAME.exr": meaning})
    return [path]


def save_depth_png(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """16-bit PNG per frame: depth = value * step, 0 = invalid, 65535 = sky; ``depth.json`` holds the step."""
    frames = chosen_frames(reconstruction, config)
    if is_file(path, ".png") and len(frames) != 1:
        raise ValueError(
            f"expected one frame for the file {path.name}, got {len(frames)}; pass --frames N or a folder"
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
        "conventions": conventions(reconstruction, config),
        "intrinsics": np.asarray(reconstruction.intrinsics)[frames].tolist(),
        "frames": [frame_notes(reconstruction, frame) for frame in frames],
    }
    if is_file(path, ".png"):
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
        write_readme(
            folder,
            reconstruction,
            config,
            frames,
            {"depth_FRAME.png": meaning, "depth.json": "step, cameras, frames"},
        )
    return [path]
