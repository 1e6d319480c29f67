"""Tracks of a tracker that works on windows of frames, as learned ones do; the windows are joined here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.tracks.follow import follow_points
from geo4d.tracks.licences import NO_WEIGHTS, show_licence
from geo4d.tracks.types import Tracks


@runtime_checkable
class Tracker(Protocol):
    """Points followed through the frames of a window.

    Attributes:
        name: shown to the user.
        licence: of the weights, shown before the first use.
    """

    name: str
    licence: str

    def __call__(
        self, frames: Float[Tensor, "V H W 3"], queries: Float[Tensor, "N 2"], query_frame: int
    ) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        """Positions (pixels, centres at +0.5) and visibility of the queried points in every frame of the window."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Interest points of one frame; ``name`` and ``licence`` as for ``Tracker``."""

    name: str
    licence: str

    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        """Positions in pixels, centres at +0.5, best first."""
        ...


def tracks_from_windows(
    frames: Iterable[Float[Tensor, "H W 3"]],
    tracker: Tracker,
    detector: Detector,
    *,
    window: int = 12,
    stride: int = 6,
    max_points: int = 512,
) -> Tracks:
    """Tracks of a learned tracker: windows with overlap, points queried at the first and the last frame of each.

    Tracks of different windows stay separate; the frames they share tie the windows together. Holds one window.

    Source: GeometryCrafter, supplement, section 4 (windows of 12, stride 6).
    """
    show_licence(tracker)
    show_licence(detector)
    held: list[Tensor] = []
    pieces: list[Piece] = []
    start = count = total = 0
    size = (0, 0)

    def solve(offset: int) -> None:
        nonlocal count
        video = torch.stack(held)
        for query_frame in {0, len(held) - 1}:
            queries = detector(video[query_frame])[:max_points]
            if len(queries) == 0:
                continue
            xy, visible = tracker(video, queries, query_frame)
            inside = (xy >= 0).all(-1) & (xy[..., 0] < size[1]) & (xy[..., 1] < size[0])
            seen = (visible & inside).T
            seen &= (seen.sum(1) >= 2)[:, None]
            track, frame = seen.nonzero(as_tuple=True)
            pieces.append(
                ((track + count).numpy(), (frame + offset).numpy(), xy.transpose(0, 1)[seen].float().numpy())
            )
            count += len(queries)

    solved_to = 0
    for frame in frames:
        size = (frame.shape[0], frame.shape[1])
        held.append(frame)
        total += 1
        if len(held) == window:
            solve(start)
            solved_to = total
            held, start = held[stride:], start + stride
    if total == 0:
        raise ValueError("expected at least one frame, got none")
    if solved_to < total:
        solve(start)
    return join_pieces(pieces, total, size)


Piece = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What one window saw, one row for each sight of a point: its number, the frame of the video, and x, y in pixels."""


def join_pieces(pieces: Sequence[Piece], num_frames: int, size: tuple[int, int]) -> Tracks:
    """The tracks of all windows. A frame that shares no track with the one before starts a shot."""
    track = np.concatenate([p[0] for p in pieces]) if pieces else np.empty(0, np.int64)
    frame_of = np.concatenate([p[1] for p in pieces]) if pieces else np.empty(0, np.int64)
    xy = np.concatenate([p[2] for p in pieces]) if pieces else np.empty((0, 2), np.float32)
    _, dense = np.unique(track, return_inverse=True)
    tied = np.zeros(num_frames, bool)
    for t in range(1, num_frames):
        before, now = dense[frame_of == t - 1], dense[frame_of == t]
        tied[t] = len(np.intersect1d(before, now)) > 0
    return Tracks(
        torch.from_numpy(dense.reshape(-1).astype(np.int64)),
        torch.from_numpy(frame_of.astype(np.int64)),
        torch.from_numpy(xy),
        num_frames,
        size,
        torch.from_numpy(~tied),
    )


class KltTracker:
    """The package's own matching in the form of a ``Tracker``, for detectors without a matcher of their own."""

    name = "pyramidal Lucas-Kanade"
    licence = NO_WEIGHTS

    def __call__(
        self, frames: Float[Tensor, "V H W 3"], queries: Float[Tensor, "N 2"], query_frame: int
    ) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
        xy = torch.zeros(len(frames), len(queries), 2)
        visible = torch.zeros(len(frames), len(queries), dtype=torch.bool)
        for order in (range(query_frame, len(frames)), range(query_frame, -1, -1)):
            found, seen = follow_points([frames[t] for t in order], queries)
            for k, t in enumerate(order):
                xy[t], visible[t] = found[k], seen[k]
        return xy, visible
