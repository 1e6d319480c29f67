"""Pictures and masks of folders to train on: at the size of the maps, or at the full size of the source."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from geo4d.errors import InputError
from geo4d.export.common import require_rgb
from geo4d.export.config import ExportConfig
from geo4d.export.kept import MOVING
from geo4d.export.points import is_static, moving_of
from geo4d.formats.images import save_image
from geo4d.types import FrameArray, Reconstruction


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size, one in memory at a time.

    Attributes:
        frames: [T, H, W, 3] in [0, 1].
        size: (height, width).
        words: what they are, for the files.
    """

    frames: FrameArray
    size: tuple[int, int]
    words: str

    def scale(self, reconstruction: Reconstruction) -> Float[np.ndarray, " 2"]:
        """(x, y): pixels of these pictures to one of the maps. Maps are stretched, never cropped: there is no offset."""
        height, width = reconstruction.size
        return np.array([self.size[1] / width, self.size[0] / height])

    def intrinsics(self, reconstruction: Reconstruction, frames: list[int]) -> Float[np.ndarray, "T 3 3"]:
        """In pixels of these pictures, centres at +0.5, float64."""
        intrinsics = np.array(reconstruction.intrinsics, np.float64)[frames]
        intrinsics[:, :2] *= self.scale(reconstruction)[:, None]
        return intrinsics

    def static(self, reconstruction: Reconstruction, frame: int) -> Bool[np.ndarray, "H W"]:
        """True where nothing is known to move; the probability is interpolated to the size of these pictures."""
        import cv2

        moving = moving_of(reconstruction, frame)
        if moving is None or self.size == reconstruction.size:
            return is_static(reconstruction, frame)
        larger = cv2.resize(moving, (self.size[1], self.size[0]), interpolation=cv2.INTER_LINEAR)
        return ~(larger >= MOVING)

    def save(
        self, path: Path, frame: int, known: np.ndarray | None, visible: Bool[np.ndarray, "H W"] | None
    ) -> None:
        """Write the picture of a frame.

        Args:
            known: the picture at the size of the maps, where it was read already.
            visible: makes an alpha channel, 0 where False, and the colour there black.
        """
        fits = known is not None and known.shape[:2] == self.size
        picture = np.asarray(known if fits else self.frames[frame], np.float32)
        pixels = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
        if visible is not None:
            pixels = np.where(visible[..., None], pixels, 0).astype(np.uint8)
            pixels = np.dstack([pixels, np.where(visible, 255, 0).astype(np.uint8)])
        save_image(path, pixels)


def pictures_of(reconstruction: Reconstruction, config: ExportConfig, what: str) -> Pictures:
    """The pictures that ``config.images`` asks for.

    Args:
        what: is exported, for the error.
    Raises:
        ValueError: no pictures at all.
        InputError: the source is wanted, and is gone or has changed.
    """
    rgb = require_rgb(reconstruction, what) if config.images == "maps" else None
    if rgb is not None:
        return Pictures(rgb, reconstruction.size, "pictures at the size of the maps")
    if reconstruction.source_rgb is None:
        name = dict(reconstruction.provenance.get("source", {})).get("path")
        where = f"the source {name} is not there any more" if name else "its source was no file"
        raise InputError(
            f"expected the source of the result for pictures of full size, but {where}; put it back, or take "
            "--images maps"
        )
    size = reconstruction.source_rgb.shape[1:3]
    return Pictures(
        reconstruction.source_rgb, (int(size[0]), int(size[1])), "pictures at the full size of the source"
    )
