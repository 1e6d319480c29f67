"""Tracks: where points were seen in the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TRACKING_SIZE = 640
"""Longest side of the pictures that points are tracked in, pixels."""


@dataclass(frozen=True)
class Tracks:
    """Observations of 2D points, sorted by track, then frame.

    Attributes:
        track, frame: which point, and in which frame it was seen.
        xy: pixels (pixel centres at +0.5).
        num_frames: length of the video.
        size: (height, width) of the pictures.
        starts_shot: True at frames that share no track with the frame before (cuts, black frames, frame 0).
    """

    track: Int[Tensor, " O"]
    frame: Int[Tensor, " O"]
    xy: Float[Tensor, "O 2"]
    num_frames: int
    size: tuple[int, int]
    starts_shot: Bool[Tensor, " T"]

    @property
    def num_tracks(self) -> int:
        """One more than the largest number of a track."""
        return int(self.track.max()) + 1 if len(self.track) else 0

    def window(self, start: int, stop: int) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        """Dense positions and visibility of the tracks seen at least twice in frames [start, stop)."""
        inside = (self.frame >= start) & (self.frame < stop)
        ids, row = self.track[inside].unique(return_inverse=True)
        often = torch.bincount(row, minlength=len(ids)) >= 2
        column = torch.cumsum(often, 0) - 1
        keep = often[row]
        xy = torch.zeros(stop - start, int(often.sum()), 2)
        visible = torch.zeros(xy.shape[:2], dtype=torch.bool)
        at = (self.frame[inside][keep] - start, column[row[keep]])
        xy[at] = self.xy[inside][keep]
        visible[at] = True
        return xy, visible
