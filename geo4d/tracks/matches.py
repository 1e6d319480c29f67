"""Tracks from matched pairs of frames: matchers that look at two pictures, and how their matches become tracks.

A matcher finds the same points in two frames however far they have moved, where following from frame to frame fails.
``SiftMatcher`` needs no weights; LightGlue comes from transformers (with SuperPoint) or kornia (with DISK), from weights
that the user has placed on this machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.tracks.licences import show_licence
from geo4d.tracks.types import Tracks


@dataclass(frozen=True)
class Matches:
    """The same points in two frames.

    Attributes:
        first, second: positions in pixels, centres at +0.5.
        confidence: in [0, 1].
    """

    first: Float[Tensor, "M 2"]
    second: Float[Tensor, "M 2"]
    confidence: Float[Tensor, " M"]


@runtime_checkable
class Matcher(Protocol):
    """Matches of two frames of one size.

    Attributes:
        name: shown to the user.
        licence: of the weights, shown before the first use.
    """

    name: str
    licence: str

    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        """RGB in [0, 1]. A matcher that finds the same keypoints in a frame every time gives the longest tracks."""
        ...


def tracks_from_matches(
    frames: Iterable[Float[Tensor, "H W 3"]],
    matcher: Matcher,
    *,
    gaps: tuple[int, ...] = (1, 2, 4),
    same_point: float = 1.0,
    min_confidence: float = 0.1,
    masks: Iterable[Bool[Tensor, "H W"]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tracks:
    """Join the matches of near pairs of frames to tracks; holds as many frames as the largest gap.

    Matches are joined in order of confidence. One that would put a track twice into a frame is left out, so that no
    track is in two places at once.

    Args:
        frames: RGB in [0, 1], all of one size.
        gaps: every frame is matched with those so many frames before it.
        same_point: keypoints of a frame closer than this are one, pixels.
        min_confidence: matches below are left out.
        masks: True where points must not be (moving things), one per frame.
        progress: called with the number of frames matched.
    Raises:
        ValueError: no frame, or frames of different size.
    """
    show_licence(matcher)
    held: deque[tuple[Tensor, Tensor | None]] = deque(maxlen=max(gaps) + 1)
    mask_iterator = iter(masks) if masks is not None else None
    places: list[list[np.ndarray]] = []
    pairs: list[tuple[int, int, int, int, np.ndarray]] = []
    size: tuple[int, int] | None = None
    for frame in frames:
        size = size or (frame.shape[0], frame.shape[1])
        if tuple(frame.shape[:2]) != size:
            raise ValueError(f"expected frames of size {size}, got {tuple(frame.shape[:2])}")
        held.append((frame, next(mask_iterator) if mask_iterator is not None else None))
        places.append([])
        now = len(places) - 1
        for gap in gaps:
            if gap < len(held):
                found = matcher(held[-1 - gap][0], frame)
                sure = found.confidence >= min_confidence
                for xy, (_, mask) in ((found.first, held[-1 - gap]), (found.second, held[-1])):
                    if mask is not None:
                        column = xy[:, 0].long().clamp(0, size[1] - 1)
                        sure &= ~mask[xy[:, 1].long().clamp(0, size[0] - 1), column]
                for t, xy in ((now - gap, found.first), (now, found.second)):
                    places[t].append(xy[sure].float().cpu().numpy())
                slots = (len(places[now - gap]) - 1, len(places[now]) - 1)
                pairs.append((now - gap, now, *slots, found.confidence[sure].float().cpu().numpy()))
        if progress is not None:
            progress(now + 1)
    if size is None:
        raise ValueError("expected at least one frame, got none")
    return _join(places, pairs, size, same_point)


def _join(
    places: list[list[np.ndarray]],
    pairs: list[tuple[int, int, int, int, np.ndarray]],
    size: tuple[int, int],
    same_point: float,
) -> Tracks:
    """Tracks from the matched positions of every frame (one array per pair that it is in) and the pairs of arrays."""
    node_xy, node_frame, numbers = [], [], []
    count = 0
    for t, arrays in enumerate(places):
        xy = np.concatenate(arrays) if arrays else np.empty((0, 2), np.float32)
        keypoint = _merge_close(xy, same_point)
        ends = np.cumsum([len(a) for a in arrays])[:-1]
        numbers.append(np.split(keypoint + count, ends) if arrays else [])
        kept = int(keypoint.max()) + 1 if len(keypoint) else 0
        first = np.zeros((kept, 2), np.float32)
        first[keypoint[::-1]] = xy[::-1]
        node_xy.append(first)
        node_frame.append(np.full(kept, t))
        count += kept
    root, frames_of = list(range(count)), [{t} for t in np.concatenate(node_frame).tolist()]

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    links = [np.empty((0, 2), np.int64)]
    confidence = [np.empty(0, np.float32)]
    for before, after, slot, slot_after, sure in pairs:
        links.append(np.stack([numbers[before][slot], numbers[after][slot_after]], 1))
        confidence.append(sure)
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    for one, other in np.concatenate(links)[order].tolist():
        a, b = find(one), find(other)
        if a != b and frames_of[a].isdisjoint(frames_of[b]):
            if len(frames_of[a]) < len(frames_of[b]):
                a, b = b, a
            root[b] = a
            frames_of[a] |= frames_of[b]
    track = np.array([find(node) for node in range(count)], np.int64)
    frame, xy = np.concatenate(node_frame).astype(np.int64), np.concatenate(node_xy)
    keep = np.bincount(track, minlength=count)[track] >= 2 if count else np.empty(0, bool)
    track, frame, xy = track[keep], frame[keep], xy[keep]
    order = np.lexsort((frame, track))
    _, track = np.unique(track[order], return_inverse=True)
    frame, xy = frame[order], xy[order]
    starts = np.ones(len(places), bool)
    follows = (track[1:] == track[:-1]) & (frame[1:] == frame[:-1] + 1)
    starts[frame[1:][follows]] = False
    return Tracks(
        torch.from_numpy(track.reshape(-1).astype(np.int64)),
        torch.from_numpy(frame),
        torch.from_numpy(xy),
        len(places),
        size,
        torch.from_numpy(starts),
    )


def _merge_close(xy: np.ndarray, distance: float) -> np.ndarray:
    """Number of the keypoint that every position belongs to: the first position within a distance."""
    from scipy.spatial import (
        cKDTree,  # here: it is a tenth of what the command loads, and the usual tracks do without
    )

    if len(xy) == 0:
        return np.empty(0, np.int64)
    first = np.arange(len(xy))
    for a, b in np.sort(cKDTree(xy).query_pairs(distance, output_type="ndarray"), axis=1).tolist():
        if first[a] == a:
            first[b] = min(first[b], a)
    first = first[first]
    return np.unique(first, return_inverse=True)[1].reshape(-1)
