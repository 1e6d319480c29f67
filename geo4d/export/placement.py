"""Unit and axes of exported worlds: one scale and one rotation, applied before any format writes.

The stored world stays the first camera. Formats see a reconstruction that is scaled and turned already.
"""

import logging
from dataclasses import replace

import numpy as np

from geo4d.export.common import chosen_frames
from geo4d.export.config import ExportConfig, Reference
from geo4d.types import LazyFrames, Reconstruction

log = logging.getLogger(__name__)


def placed(reconstruction: Reconstruction, config: ExportConfig) -> tuple[Reconstruction, ExportConfig]:
    """The reconstruction in the unit and axes that ``config`` asks for.

    Returns:
        depth and camera positions times the scale, cameras in the turned world, and the config with the scale that a
        reference length comes to and the metres in a unit. Without a scale or another ``up`` the arrays are the same.
    Raises:
        ValueError: no depth at a pixel of the reference, no distance between its points, or frames of other scenes than
            the one that it measures.
    """
    scale = config.scale
    if config.reference is not None:
        _require_one_scene(reconstruction, config, config.reference)
        scale = reference_scale(reconstruction, config.reference)
        metres: float | None = 1.0
        log.info("a reference length of %g m: lengths times %.6g", config.reference.metres, scale)
    else:
        metres = 1 / scale if reconstruction.scale_kind == "metric" else None
    if scale != 1 or config.reference is not None:
        reconstruction = _scaled(reconstruction, scale, metric=metres == 1)
    turn = config.rotation
    if reconstruction.c2w is not None and not np.array_equal(turn, np.eye(3)):
        c2w = np.array(reconstruction.c2w, np.float64)
        c2w[:, :3] = turn @ c2w[:, :3]
        reconstruction = replace(reconstruction, c2w=c2w)
    return reconstruction, replace(config, scale=scale, metres_per_unit=metres)


def _scaled(reconstruction: Reconstruction, scale: float, *, metric: bool) -> Reconstruction:
    depth = reconstruction.depth

    def compute(frame: int) -> np.ndarray:
        return np.asarray(depth[frame], np.float32) * np.float32(scale)

    c2w = reconstruction.c2w
    if c2w is not None:
        c2w = np.array(c2w, np.float64)
        c2w[:, :3, 3] *= scale
    return replace(
        reconstruction,
        depth=LazyFrames(tuple(depth.shape), np.dtype(np.float32), compute),
        c2w=c2w,
        scale_kind="metric" if metric else "scale",
    )


def reference_scale(reconstruction: Reconstruction, reference: Reference) -> float:
    """The factor that makes the reference as long as it is said to be.

    Raises:
        ValueError: frame or pixels out of range, no depth at a pixel, or no distance between the points.
    """
    frame, (height, width) = reference.frame, reconstruction.size
    if not 0 <= frame < reconstruction.num_frames:
        raise ValueError(
            f"expected a reference frame in [0, {reconstruction.num_frames - 1}], got {frame}; frames count in the result"
        )
    depth = np.asarray(reconstruction.depth[frame], np.float64)
    inverse = np.linalg.inv(np.asarray(reconstruction.intrinsics[frame], np.float64))
    points = []
    for x, y in (reference.first, reference.second):
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"expected pixels of the reference within {width}x{height} (the size of the maps), got {x:g},{y:g}"
            )
        z = depth[int(y), int(x)]
        if not np.isfinite(z):
            raise ValueError(f"there is no depth at pixel {x:g},{y:g} of frame {frame}; choose another one")
        points.append(z * (inverse @ [x, y, 1]))
    length = float(np.linalg.norm(points[0] - points[1]))
    if not length > 0:
        raise ValueError(f"expected two points of a reference, got twice {reference.first}")
    return reference.metres / length


def _require_one_scene(reconstruction: Reconstruction, config: ExportConfig, reference: Reference) -> None:
    """Every scene has a scale of its own: a length measured in one says nothing about another."""
    scene = reconstruction.scene
    if scene is None or not 0 <= reference.frame < reconstruction.num_frames:
        return
    others = {int(scene[frame]) for frame in chosen_frames(reconstruction, config)} - {
        int(scene[reference.frame])
    }
    if others:
        raise ValueError(
            f"the reference is in scene {int(scene[reference.frame])}, the chosen frames are also in {sorted(others)}, "
            "each with a scale of its own; pass --scene"
        )
