"""A predictor in the role of a per-frame prior: every frame is a window of its own."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from geo4d.geometry.cameras import resize_intrinsics, unproject
from geo4d.models.base import Predictor
from geo4d.types import EvidenceMaps, Window


class PerFramePrior:
    """Points of every frame by itself, from a predictor that gives disparity and intrinsics, such as the bundled model.

    Args:
        predictor: asked for windows of one frame, without evidence from motion.
    """

    frames_alone = True

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.name = f"{predictor.info.name} per frame"

    def __call__(self, window: Window) -> EvidenceMaps:
        """Points in each frame's own camera, at the size of the frames; the sky is not in the mask."""
        parts = [self._frame(window, t) for t in range(window.num_frames)]
        points, mask, intrinsics = (torch.cat(values) for values in zip(*parts, strict=True))
        return EvidenceMaps(points=points, mask=mask, scale_kind="scale", intrinsics=intrinsics)

    def _frame(self, window: Window, t: int) -> tuple[Tensor, Tensor, Tensor]:
        size = self.predictor.size_for(window.size)
        rgb = window.rgb[t : t + 1].movedim(-1, 1)
        if size != window.size:
            rgb = F.interpolate(rgb, size=size, mode="bilinear", align_corners=False, antialias=True)
        one = dataclasses.replace(
            window,
            rgb=rgb.movedim(1, -1),
            frame_indices=torch.zeros(1, dtype=window.frame_indices.dtype),
            times_s=torch.zeros(1, dtype=window.times_s.dtype),
            index=0,
            intrinsics=None,
            pixel_aspect=(size[0] / window.size[0]) / (size[1] / window.size[1]),
        )
        found = self.predictor.predict(one, seed=0)
        if found.disparity is None or found.intrinsics is None:
            raise ValueError(f"expected disparity and intrinsics from {self.predictor.info.name}, got none")
        surface = torch.ones_like(found.disparity, dtype=torch.bool) if found.valid is None else found.valid
        resized = F.interpolate(
            found.disparity[:, None], size=window.size, mode="bilinear", align_corners=False
        )
        mask = F.interpolate(surface[:, None].float(), size=window.size, mode="nearest")[:, 0] > 0
        disparity = resized[:, 0]
        mask = mask & (disparity > 1e-4)
        intrinsics = resize_intrinsics(found.intrinsics.float(), size, window.size)
        return unproject(1 / disparity.clamp(min=1e-4), intrinsics), mask, intrinsics
