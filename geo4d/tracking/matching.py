"""Tracks from matched pairs of frames: matchers that look at two pictures, and how their matches become tracks.

A matcher finds the same points in two frames however far they have moved, where following from frame to frame fails.
``SiftMatcher`` needs no weights; LightGlue comes from transformers (with SuperPoint) or kornia (with DISK), from weights
that the user has placed on this machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from geo4d.errors import CheckpointError, MissingExtraError
from geo4d.tracking.plugins import NO_WEIGHTS, load_state, show_licence
from geo4d.tracking.tracks import Tracks

_cv2: Any = cv2
"""The same module where its type stubs are narrower than its functions."""


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


def mix_tracks(first: Tracks, second: Tracks, *, least_length: int = 2) -> Tracks:
    """Tracks of the same video from two sources, side by side: a point that both found counts twice.

    Args:
        least_length: shorter tracks of ``second`` are left out.
    Raises:
        ValueError: they belong to different videos.
    """
    if (first.num_frames, first.size) != (second.num_frames, second.size):
        raise ValueError(
            f"expected tracks of {first.num_frames} frames of {first.size}, got {second.num_frames} of {second.size}"
        )
    keep = torch.bincount(second.track, minlength=1)[second.track] >= least_length
    _, row = second.track[keep].unique(return_inverse=True)
    return Tracks(
        torch.cat([first.track, row + first.num_tracks]),
        torch.cat([first.frame, second.frame[keep]]),
        torch.cat([first.xy, second.xy[keep]]),
        first.num_frames,
        first.size,
        first.starts_shot & second.starts_shot,
    )


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
    if len(xy) == 0:
        return np.empty(0, np.int64)
    first = np.arange(len(xy))
    for a, b in np.sort(cKDTree(xy).query_pairs(distance, output_type="ndarray"), axis=1).tolist():
        if first[a] == a:
            first[b] = min(first[b], a)
    first = first[first]
    return np.unique(first, return_inverse=True)[1].reshape(-1)


class SiftMatcher:
    """SIFT points whose descriptors choose each other, and clearly; without weights."""

    name = "SIFT"
    licence = NO_WEIGHTS

    def __init__(self, *, max_points: int = 2000, ratio: float = 0.8, epipolar: float = 3.0) -> None:
        """Args:
        max_points: per frame.
        ratio: the best match is nearer than the second by this factor.
        epipolar: matches farther from the epipolar lines of most are left out, pixels; 0 keeps all.
        """
        self._sift = _cv2.SIFT_create(max_points, contrastThreshold=0.02, enable_precise_upscale=True)
        self._ratio, self._epipolar = ratio, epipolar
        self._known: deque[tuple[Tensor, np.ndarray, np.ndarray]] = deque(maxlen=12)

    def _describe(self, frame: Tensor) -> tuple[np.ndarray, np.ndarray]:
        for known, xy, descriptors in self._known:
            if known is frame:
                return xy, descriptors
        rgb = frame.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        keys, found = self._sift.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
        xy = np.array([k.pt for k in keys], np.float32).reshape(-1, 2) + np.float32(0.5)
        descriptors = np.zeros((0, 128), np.float32) if found is None else found
        # The root of the share of every direction: inner products compare histograms better than lengths do.
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
        self._known.append((frame, xy, descriptors))
        return xy, descriptors

    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        (xy_a, a), (xy_b, b) = self._describe(first), self._describe(second)
        if min(len(a), len(b)) < 2:
            return Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
        alike = a @ b.T
        there = alike.argmax(1)
        mutual = alike.argmax(0)[there] == np.arange(len(a))
        rows = np.arange(len(a))
        distance = np.sqrt(np.maximum(2 - 2 * alike[rows, there], 0))
        alike[rows, there] = -1
        second_best = np.sqrt(np.maximum(2 - 2 * alike.max(1), 1e-12))
        clear = distance / second_best
        good = mutual & (clear < self._ratio)
        source, target, confidence = xy_a[good], xy_b[there[good]], 1 - clear[good]
        if self._epipolar > 0 and len(source) >= 16:
            cv2.setRNGSeed(0)
            _, inlier = _cv2.findFundamentalMat(source, target, cv2.FM_RANSAC, self._epipolar, 0.999, 2000)
            if inlier is not None:
                kept = inlier[:, 0] > 0
                source, target, confidence = source[kept], target[kept], confidence[kept]
        return Matches(torch.from_numpy(source), torch.from_numpy(target), torch.from_numpy(confidence))


class LightGlueMatcher:
    """LightGlue with SuperPoint through transformers, from weights that the user has placed on this machine."""

    name = "LightGlue with SuperPoint"
    licence = (
        "LightGlue Apache-2.0; SuperPoint by Magic Leap: academic and non-commercial research only "
        "(check the folder you installed)"
    )

    def __init__(self, weights: str | Path) -> None:
        """Args:
        weights: local folder of a transformers LightGlue model (it holds its SuperPoint, too).

        Raises:
            MissingExtraError: transformers is not installed.
            CheckpointError: the folder is missing or holds something else.
        """
        try:
            from transformers import LightGlueForKeypointMatching
        except ImportError as error:
            raise MissingExtraError("transformers", "geometrycrafter", "the LightGlue matcher") from error
        if not Path(weights).is_dir():
            raise CheckpointError(f"expected a LightGlue folder at {weights}, found nothing")
        try:
            model: Any = LightGlueForKeypointMatching.from_pretrained(weights, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{weights} does not hold a LightGlue model: {error}") from error
        self._model = model.eval()

    @torch.inference_mode()
    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        # The library's processor needs torchvision; it makes the pictures grey, no more is needed at our sizes.
        grey = torch.stack([first, second]) @ torch.tensor([0.2989, 0.587, 0.114])
        found = self._model(grey[None, :, None].expand(-1, -1, 3, -1, -1))
        size = torch.tensor([first.shape[1], first.shape[0]])
        to = found.matches[0, 0]
        matched = (to > -1) & found.mask[0, 0].bool()
        return Matches(
            found.keypoints[0, 0][matched] * size + 0.5,
            found.keypoints[0, 1][to[matched].long()] * size + 0.5,
            found.matching_scores[0, 0][matched],
        )


class DiskLightGlueMatcher:
    """LightGlue with DISK through kornia, from weights that the user has placed on this machine."""

    name = "LightGlue with DISK"
    licence = (
        "Apache-2.0 (DISK and LightGlue weights as distributed with kornia; check the files you installed)"
    )

    def __init__(self, disk: str | Path, lightglue: str | Path, *, max_points: int = 1024) -> None:
        """Args:
        disk: state dictionary of ``kornia.feature.DISK``.
        lightglue: state dictionary of LightGlue for DISK.
        max_points: per frame.

        Raises:
            MissingExtraError: kornia is not installed.
            CheckpointError: weights are missing or do not fit.
        """
        try:
            from kornia.feature import DISK, LightGlue
        except ImportError as error:
            raise MissingExtraError(
                "kornia", "learned-tracks", "the LightGlue matcher with DISK points"
            ) from error
        self._disk = load_state(DISK(), disk, "DISK")
        self._glue = load_state(LightGlue(None, input_dim=128), lightglue, "LightGlue")
        self._max_points = max_points

    @torch.inference_mode()
    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        pictures = torch.stack([first, second]).permute(0, 3, 1, 2)
        found = self._disk(pictures, self._max_points, pad_if_not_divisible=True)
        size = torch.tensor([[first.shape[1], first.shape[0]]])
        if min(len(f.keypoints) for f in found) < 2:
            return Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
        asked = {
            f"image{k}": {
                "keypoints": f.keypoints[None].float(),
                "descriptors": f.descriptors[None],
                "image_size": size,
            }
            for k, f in enumerate(found)
        }
        matched = self._glue(asked)
        pairs = matched["matches"][0]
        return Matches(
            found[0].keypoints[pairs[:, 0]].float() + 0.5,
            found[1].keypoints[pairs[:, 1]].float() + 0.5,
            matched["scores"][0].float(),
        )
