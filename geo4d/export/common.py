"""What all formats share: the frames that are meant, and the words that every file states."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export.config import AXES, ExportConfig
from geo4d.types import CONVENTIONS, Reconstruction


def conventions(reconstruction: Reconstruction, config: ExportConfig | None = None) -> dict[str, str]:
    """What every exported file states, in words.

    Args:
        reconstruction: as it is written: scaled and turned as ``config`` says.
        config: as ``save`` completed it; None for a reconstruction as it is stored.
    """
    config = config or ExportConfig()
    words = {
        "camera_axes": CONVENTIONS["camera_axes"],
        "poses": "c2w, " + CONVENTIONS["c2w"],
        "world": _world(reconstruction, config),
        "depth": CONVENTIONS["depth"],
        "unit": _unit(reconstruction, config),
        "intrinsics": CONVENTIONS["intrinsics"],
    }
    if config.up not in (None, "camera") and reconstruction.c2w is not None:
        words["world_axes"] = f"{AXES[config.up][1]}; up is that of the first camera, not of gravity"
    if config.scale != 1:
        words["scale"] = f"lengths are those of the result times {config.scale:.9g}"
    if config.reference is not None:
        words["reference"] = config.reference.words()
    return words


def _unit(reconstruction: Reconstruction, config: ExportConfig) -> str:
    if config.metres_per_unit not in (None, 1):
        return f"{config.metres_per_unit:.9g} metres"
    if reconstruction.scale_kind == "metric":
        return "metres"
    return "up to scale (one unknown factor for the whole scene)"


def _world(reconstruction: Reconstruction, config: ExportConfig) -> str:
    """Where the world lies, as the poses have it."""
    if reconstruction.c2w is None:
        return "none: there are no poses; points are in the frame of each camera"
    c2w = np.asarray(reconstruction.c2w, np.float64)
    scene = np.zeros(len(c2w), int) if reconstruction.scene is None else np.asarray(reconstruction.scene)
    first = [int(np.flatnonzero(scene == number)[0]) for number in np.unique(scene)]
    turn = np.eye(4)
    turn[:3, :3] = config.rotation
    if np.abs(c2w[first] - turn).max() <= 1e-5:
        numbers = ", ".join(map(str, first))
        pose = "the identity" if config.up in (None, "camera") else "the rotation to these axes"
        return f"the first camera of each scene: the c2w of frame {numbers} is {pose}"
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


def is_file(path: Path, *suffixes: str) -> bool:
    """Whether a path names a file with one of these suffixes (lower case, with the dot) rather than a folder."""
    return path.suffix.lower() in suffixes


def frame_notes(reconstruction: Reconstruction, frame: int) -> dict[str, Any]:
    """Number of a frame in the result and in the source, and its time in seconds."""
    return {
        "frame": frame,
        "source_frame": int(reconstruction.source_frames[frame]),
        "time_s": float(reconstruction.times_s[frame]),
    }


def write_readme(
    folder: Path,
    reconstruction: Reconstruction,
    config: ExportConfig,
    frames: Sequence[int],
    files: dict[str, str],
) -> None:
    """``README.txt`` of a folder: its files, the conventions, and the frames with their numbers and times."""
    lines = ["Written by geo4d.", "", "Files:"]
    lines += [f"  {name}: {meaning}" for name, meaning in files.items()]
    lines += ["", "Conventions:"]
    lines += [f"  {name}: {meaning}" for name, meaning in conventions(reconstruction, config).items()]
    lines += ["", "Frames (number in the reconstruction, number in the source, time in seconds):"]
    lines += [
        f"  {f} {int(reconstruction.source_frames[f])} {float(reconstruction.times_s[f]):.6f}" for f in frames
    ]
    (folder / "README.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def poses_of(reconstruction: Reconstruction, frames: Sequence[int]) -> np.ndarray:
    """[T, 4, 4] camera to world of some frames, float64."""
    assert reconstruction.c2w is not None
    return np.asarray(reconstruction.c2w, np.float64)[list(frames)]


def require_rgb(reconstruction: Reconstruction, what: str) -> Any:
    """The pictures of the source at the size of the maps.

    Raises:
        ValueError: the source cannot be read.
    """
    if reconstruction.rgb is None:
        raise ValueError(
            f"{what} includes the images, but the source video of this reconstruction cannot be read"
        )
    return reconstruction.rgb
