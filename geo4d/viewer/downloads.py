"""Files that the viewer sends to the browser: exports of what is shown, and the view as a picture."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import UInt8

from geo4d.export import ExportConfig, save
from geo4d.types import Reconstruction

POINTS = 1_000_000
"""A browser holds the whole file in memory before it is stored: about 20 MB."""

KINDS = {
    "points of this frame (PLY)": ("ply", "frame_{frame}.ply"),
    "points of the scene (PLY)": ("ply", "scene.ply"),
    "points and camera (GLB)": ("glb", "scene.glb"),
    "camera path (TUM)": ("tum", "path.txt"),
}
"""Words of the button -> format, name of the file."""


def export_bytes(
    reconstruction: Reconstruction, kind: str, *, frame: int, scene: int, min_confidence: float
) -> tuple[str, bytes]:
    """Name and content of one exported file.

    Args:
        kind: one of ``KINDS``.
        frame: the shown one.
        scene: its number.
        min_confidence: as the slider has it.
    Raises:
        ValueError, GeometryError: as ``geo4d.export.save``.
    """
    format, name = KINDS[kind]
    name = name.format(frame=frame)
    config = ExportConfig(
        frames=(frame,) if "frame_" in name else None,
        scene=None if reconstruction.scene is None or "frame_" in name else scene,
        min_confidence=None if format == "tum" else min_confidence,
        max_points=POINTS,
    )
    with TemporaryDirectory(prefix="geo4d_view_") as folder:
        (written,) = save(reconstruction, Path(folder) / name, format, config)
        return name, written.read_bytes()


def png_bytes(pixels: UInt8[np.ndarray, "H W C"]) -> bytes:
    """A picture as the bytes of a PNG file."""
    import cv2

    written, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., :3][..., ::-1]))
    assert written
    return data.tobytes()
