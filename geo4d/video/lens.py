"""Pictures of a distorted lens as a pinhole camera takes them; the one place where pictures are undistorted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.errors import InputError
from geo4d.geometry.cameras import intrinsics_matrix, resize_intrinsics
from geo4d.geometry.distortion import Distortion, undistorted_intrinsics, undistortion_map

_MOST_MAPS = 4
"""Sizes for which the way of the pixels is kept."""


@dataclass(frozen=True)
class Lens:
    """The camera of distorted pictures.

    Attributes:
        distortion: of the lens.
        intrinsics: fx fy cx cy in pixels of the distorted pictures at their full size, pixel centres at +0.5.
    """

    distortion: Distortion
    intrinsics: tuple[float, float, float, float]
    _maps: dict[Any, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, stated: Mapping[str, Any]) -> Lens:
        """From what ``stated`` gave, as a manifest keeps it.

        Raises:
            InputError: it is something else.
        """
        try:
            fx, fy, cx, cy = (float(value) for value in stated["intrinsics"])
            coefficients = tuple(float(k) for k in stated["coefficients"])
            return cls(Distortion(stated["model"], coefficients), (fx, fy, cx, cy))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected model, coefficients and intrinsics of a lens, got {stated!r:.200}"
            ) from error

    def stated(self) -> dict[str, Any]:
        """JSON values that ``of`` reads."""
        return {
            "model": self.distortion.model,
            "coefficients": list(self.distortion.coefficients),
            "intrinsics": list(self.intrinsics),
        }

    def pinhole(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """fx fy cx cy of the undistorted pictures of (height, width), pixel centres at +0.5.

        Raises:
            ValueError: no pinhole picture fits into the distorted one.
        """
        camera = undistorted_intrinsics(self.distortion, self._matrix(), size)
        return float(camera[0, 0]), float(camera[1, 1]), float(camera[0, 2]), float(camera[1, 2])

    def undistorted(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, C] uint8 picture of the full size, as the pinhole camera shows it (bilinear)."""
        import cv2

        height, width = frame.shape[:2]
        way = self._way((height, width), (height, width))
        return cv2.remap(frame, *way, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def undistorted_map(self, values: np.ndarray, full: tuple[int, int]) -> np.ndarray:
        """[h, w] of the distorted camera at any size, as the pinhole camera shows it; the nearest value, never a mixture.

        Args:
            full: (height, width) of the pictures.
        """
        import cv2

        way = self._way((values.shape[0], values.shape[1]), full)
        return cv2.remap(values, *way, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    def _matrix(self) -> Float[Tensor, "3 3"]:
        return intrinsics_matrix(*(torch.tensor(value, dtype=torch.float64) for value in self.intrinsics))

    def _way(self, size: tuple[int, int], full: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """x and y [H, W] of where each pixel comes from, counted from the centre of the first as OpenCV does."""
        if (size, full) not in self._maps:
            distorted = self._matrix()
            pinhole = undistorted_intrinsics(self.distortion, distorted, full)
            way = undistortion_map(
                self.distortion,
                resize_intrinsics(distorted, full, size),
                resize_intrinsics(pinhole, full, size),
                size,
            )
            while len(self._maps) >= _MOST_MAPS:
                self._maps.pop(next(iter(self._maps)))
            x, y = (np.ascontiguousarray(part, np.float32) for part in (way - 0.5).unbind(-1))
            self._maps[size, full] = x, y
        return self._maps[size, full]
