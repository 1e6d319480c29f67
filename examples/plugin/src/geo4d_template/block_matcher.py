"""The tracker ``blocks``: interest points on a grid, followed by the package's own matching.

``geo4d pose --tracks blocks``. A ``TrackSource`` makes, of the files that it needs, a function (frames, masks) -> tracks.
``windowed`` makes one of a detector and a follower, ``matched`` of a matcher of pairs.
"""

import torch
from torch import Tensor

from geo4d.tracks.sources import TrackSource, windowed
from geo4d.tracks.windows import KltTracker

STEP = 12


class GridDetector:
    """Points on a grid; ``name`` and ``licence`` are shown before the first use."""

    name = "grid"
    licence = "Apache-2.0 (no weights)"

    def __call__(self, frame: Tensor) -> Tensor:
        """Positions [N, 2] (x, y) in pixels of a frame [H, W, 3], centres at +0.5, best first."""
        height, width = frame.shape[:2]
        rows, columns = torch.meshgrid(
            torch.arange(STEP // 2, height, STEP), torch.arange(STEP // 2, width, STEP), indexing="ij"
        )
        return torch.stack([columns.flatten(), rows.flatten()], 1) + 0.5


BLOCKS = TrackSource(lambda files, size: windowed(KltTracker(), GridDetector()))
