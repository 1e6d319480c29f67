"""A clip as a folder in the project's simple ground-truth layout (described in ``docs/synthetic.md``)."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.formats.arrays import save_npz
from geo4d.formats.cameras import save_tum
from geo4d.formats.files import new_folder
from geo4d.formats.images import save_image, save_png16
from geo4d.synthetic.render import SyntheticClip, SyntheticFrame, iter_frames
from geo4d.synthetic.scene import Scene

LAYOUT_VERSION = 1


def save_clip(
    clip: SyntheticClip, path: str | Path, half: bool = False, with_rgb: bool = True, overwrite: bool = False
) -> None:
    """Write a clip and its truth as a folder; complete or absent.

    Args:
        path: folder to make.
        half: depth as float16 (relative error 5e-4) instead of float32.
        with_rgb: False leaves the pictures out, for a truth folder beside a video file.
        overwrite: replace an existing folder.
    Raises:
        OutputError: the folder exists or cannot be written.
    """
    frames = (
        SyntheticFrame(
            index=t,
            rgb=clip.rgb[t],
            depth=clip.depth[t],
            dynamic=clip.dynamic[t],
            object_id=clip.object_id[t],
            intrinsics=clip.intrinsics[t],
            c2w=clip.c2w[t],
            time_s=float(clip.times_s[t]),
        )
        for t in range(clip.num_frames)
    )
    _save(frames, asdict(clip.config), path, half, with_rgb, overwrite)


def save_scene(
    scene: Scene, size: tuple[int, int], path: str | Path, half: bool = False, overwrite: bool = False
) -> None:
    """Draw a scene frame by frame into a folder; for clips too long for memory.

    Raises:
        OutputError: the folder exists or cannot be written.
        MissingExtraError: numba is not installed.
    """
    _save(iter_frames(scene, size), asdict(scene.config), path, half, True, overwrite)


def _save(
    frames: Iterable[SyntheticFrame],
    config: dict[str, Any],
    path: str | Path,
    half: bool,
    with_rgb: bool,
    overwrite: bool,
) -> None:
    dtype = np.float16 if half else np.float32
    intrinsics, c2w, times = [], [], []
    size = (0, 0)
    with new_folder(path, overwrite=overwrite) as folder:
        for name in ("rgb",) * with_rgb + ("depth", "dynamic"):
            (folder / name).mkdir()
        for frame in frames:
            name = f"{frame.index:06d}"
            size = (frame.depth.shape[0], frame.depth.shape[1])
            if with_rgb:
                save_image(folder / "rgb" / f"{name}.png", frame.rgb.numpy())
            save_npz(folder / "depth" / f"{name}.npz", {"depth": frame.depth.numpy().astype(dtype)})
            save_png16(folder / "dynamic" / f"{name}.png", frame.dynamic.numpy() * 65535.0)
            matrix = frame.intrinsics.double().numpy()
            intrinsics.append([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
            c2w.append(frame.c2w.double().numpy())
            times.append(frame.time_s)
        np.savetxt(
            folder / "intrinsics.txt",
            intrinsics,
            fmt="%.9g",
            header="fx fy cx cy, pixel centres at +0.5",
            encoding="utf-8",
        )
        save_tum(
            folder / "poses.txt",
            np.array(times),
            np.stack(c2w),
            ["c2w, metres, OpenCV axes: t tx ty tz qx qy qz qw"],
        )
        about = {
            "layout": LAYOUT_VERSION,
            "num_frames": len(times),
            "height": size[0],
            "width": size[1],
            "fps": config["fps"],
            "depth_unit": "metres",
            "depth_dtype": np.dtype(dtype).name,
            "scene": config,
        }
        (folder / "clip.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
