"""2D tracks over a video: grid-spread corners, pyramidal Lucas-Kanade with a forward-backward check, no weights.

Points start at keyframes. Every frame is matched from the frame before (with a dense coarse flow as the first guess, so
that large motion is no obstacle) and then directly from the keyframe, which keeps the tracks from drifting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.tracks.types import Tracks

_cv2: Any = cv2
"""The same module where its type stubs are narrower than its functions."""


@dataclass(frozen=True)
class TrackConfig:
    """Settings of the tracker; lengths are shares of the image diagonal unless said otherwise.

    Attributes:
        max_points: tracks alive at once.
        spacing: least distance between points when they start.
        patch: side of the matched patch, odd, pixels.
        forward_backward: largest error of going there and back, pixels.
        keyframe_share: a new keyframe starts when fewer than this share of its points are left.
        keyframe_motion: or when they moved this far (median).
        cut_share: a cut is where fewer than this share of at least ``min_points`` survive one step.
        min_correlation: least correlation of a patch from one frame to the next.
        rematch_share: when fewer survive a step, the frames are matched by descriptors and the step is tried again.
        min_points: below this nothing is said about cuts.
        min_corner: least corner strength (smallest eigenvalue of the normalised structure tensor).
    """

    max_points: int = 700
    spacing: float = 0.012
    patch: int = 17
    forward_backward: float = 0.8
    keyframe_share: float = 0.7
    keyframe_motion: float = 0.12
    cut_share: float = 0.15
    min_correlation: float = 0.7
    rematch_share: float = 0.5
    min_points: int = 20
    min_corner: float = 2e-5


def track_points(
    frames: Iterable[Float[Tensor, "H W 3"]],
    config: TrackConfig | None = None,
    *,
    masks: Iterable[Bool[Tensor, "H W"]] | None = None,
) -> Tracks:
    """Track points through a video, one frame in memory at a time.

    Args:
        frames: RGB in [0, 1], all of one size.
        config: see ``TrackConfig``.
        masks: True where points must not be (moving things), one per frame.
    Raises:
        ValueError: no frame, or frames of different size.
    """
    builder = TrackBuilder(config)
    mask_iterator = iter(masks) if masks is not None else None
    for frame in frames:
        builder.add(frame, next(mask_iterator) if mask_iterator is not None else None)
    return builder.finish()


def follow_points(
    frames: Iterable[Float[Tensor, "H W 3"]], points: Float[Tensor, "N 2"], config: TrackConfig | None = None
) -> tuple[Float[Tensor, "V N 2"], Bool[Tensor, "V N"]]:
    """Follow given points of the first frame through the others, without starting new ones.

    Args:
        frames: RGB in [0, 1].
        points: pixels of the first frame, centres at +0.5.
        config: see ``TrackConfig``.
    Returns:
        positions (0 where lost) and visibility.
    """
    builder = TrackBuilder(config)
    builder.given = points.cpu().numpy().astype(np.float32) - 0.5
    for frame in frames:
        builder.add(frame)
    xy = torch.zeros(len(builder.history), len(points), 2)
    visible = torch.zeros(xy.shape[:2], dtype=torch.bool)
    for t, (ids, found) in enumerate(builder.history):
        xy[t, ids] = torch.from_numpy(found) + 0.5
        visible[t, ids] = True
    return xy, visible


class TrackBuilder:
    """Tracks of a stream of frames: ``add`` every frame in order, then ``finish``.

    Attributes:
        history: per frame the numbers of the points seen and their positions (pixel centres at integers).
        given: points to follow instead of detected corners, or None.
    """

    def __init__(self, config: TrackConfig | None = None) -> None:
        self.config = config or TrackConfig()
        self._dense: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._previous: np.ndarray | None = None
        self._keyframe: np.ndarray | None = None
        self._described: Described | None = None
        self._ids = np.empty(0, np.int64)
        self._points = np.empty((0, 2), np.float32)
        self._anchors = np.empty((0, 2), np.float32)
        self._anchored = 0
        self._next_id = 0
        self.given: np.ndarray | None = None
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts: list[bool] = []
        self._size: tuple[int, int] | None = None

    def add(self, frame: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None) -> None:
        """Track into the next frame; ``mask`` is True where points must not be."""
        size = (frame.shape[0], frame.shape[1])
        if self._size is None:
            self._size = size
        if size != self._size:
            raise ValueError(f"expected frames of size {self._size}, got {size}")
        rgb = frame.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        blocked = None if mask is None else mask.cpu().numpy()
        if self._previous is None:
            self._starts.append(True)
            self._restart(grey, blocked)
        else:
            alive_before = len(self._ids)
            self._advance(grey, blocked)
            lost = len(self._ids) < self.config.cut_share * alive_before
            cut = lost and alive_before >= self.config.min_points
            if cut:
                self._ids, self._points = self._ids[:0], self._points[:0]
                self._anchors = self._anchors[:0]
            self._starts.append(cut or len(self._ids) == 0)
            moved = np.linalg.norm(self._points - self._anchors, axis=1)
            far = len(moved) and np.median(moved) > self.config.keyframe_motion * float(np.hypot(*size))
            if (
                len(self._ids) < self.config.keyframe_share * max(self._anchored, self.config.min_points)
                or far
            ):
                self._restart(grey, blocked)
        self.history.append((self._ids, self._points))
        self._previous = grey

    def finish(self) -> Tracks:
        """All tracks that were seen at least twice.

        Raises:
            ValueError: no frame was added.
        """
        if self._size is None:
            raise ValueError("expected at least one frame, got none")
        ids = np.concatenate([i for i, _ in self.history])
        frames = np.repeat(np.arange(len(self.history)), [len(i) for i, _ in self.history])
        points = np.concatenate([p for _, p in self.history]) + 0.5
        count = np.bincount(ids, minlength=self._next_id)
        keep = count[ids] >= 2
        order = np.lexsort((frames[keep], ids[keep]))
        _, dense = np.unique(ids[keep][order], return_inverse=True)
        return Tracks(
            torch.from_numpy(dense.astype(np.int64).reshape(-1)),
            torch.from_numpy(frames[keep][order].astype(np.int64)),
            torch.from_numpy(points[keep][order].astype(np.float32)),
            len(self.history),
            self._size,
            torch.tensor(self._starts),
        )

    def _restart(self, grey: np.ndarray, blocked: np.ndarray | None) -> None:
        """Make this frame the keyframe and fill up the points."""
        if self.given is None:
            corners = detect_corners(grey, self._points, self.config, blocked)
        else:
            corners = self.given if not self.history else self.given[:0]
        new_ids = np.arange(self._next_id, self._next_id + len(corners))
        self._next_id += len(corners)
        self._ids = np.concatenate([self._ids, new_ids])
        self._points = np.concatenate([self._points, corners]).astype(np.float32)
        self._anchors = self._points.copy()
        self._anchored = len(self._ids)
        self._keyframe = grey

    def _advance(self, grey: np.ndarray, blocked: np.ndarray | None) -> None:
        if len(self._ids) == 0 or self._previous is None or self._keyframe is None:
            self._described = None
            return
        described = None
        point, good = self._follow(grey, self._points + self._coarse_flow(grey))
        if good.mean() < self.config.rematch_share and len(good) >= self.config.min_points:
            before = self._described or describe_points(self._previous)
            described = describe_points(grey)
            guess = matched_guess(before, described, self._points)
            if guess is not None:
                again, good_again = self._follow(grey, guess)
                if good_again.sum() > good.sum():
                    point, good = again, good_again
        if blocked is not None:
            columns = np.clip(point[:, 0].round(), 0, grey.shape[1] - 1).astype(int)
            rows = np.clip(point[:, 1].round(), 0, grey.shape[0] - 1).astype(int)
            good &= ~blocked[rows, columns]
        self._ids, self._points = self._ids[good], point[good]
        self._anchors = self._anchors[good]
        self._described = described

    def _follow(self, grey: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the new frame from a first guess, and which of them can be trusted."""
        assert self._previous is not None
        assert self._keyframe is not None
        config = self.config
        settings = {
            "winSize": (config.patch, config.patch),
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01),
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        guess = guess.astype(np.float32)
        step, _, _ = _cv2.calcOpticalFlowPyrLK(
            self._previous, grey, self._points, guess, maxLevel=2, **settings
        )
        point, found, _ = _cv2.calcOpticalFlowPyrLK(
            self._keyframe, grey, self._anchors, step.copy(), maxLevel=0, **settings
        )
        # Where the keyframe's patch leads elsewhere the picture has changed too much: trust the last step.
        strayed = (np.linalg.norm(point - step, axis=1) > 2.0) | (found[:, 0] == 0)
        point = np.where(strayed[:, None], step, point).astype(np.float32)
        back, found, _ = _cv2.calcOpticalFlowPyrLK(
            grey, self._previous, point, self._points.copy(), maxLevel=1, **settings
        )
        height, width = grey.shape
        good = (found[:, 0] == 1) & (np.linalg.norm(back - self._points, axis=1) < config.forward_backward)
        good &= np.isfinite(point).all(1)
        point = np.nan_to_num(point)
        good &= (point >= 2).all(1) & (point[:, 0] < width - 3) & (point[:, 1] < height - 3)
        good &= patch_correlation(self._previous, self._points, grey, point) > config.min_correlation
        return point, good

    def _coarse_flow(self, grey: np.ndarray) -> np.ndarray:
        """First guess of the motion of every point from dense flow at about 160 columns."""
        assert self._previous is not None
        factor = min(1.0, 160 / max(grey.shape))
        small = [
            cv2.resize(g, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            for g in (self._previous, grey)
        ]
        if min(small[0].shape) < 16:
            return np.zeros_like(self._points)
        flow = self._dense.calc(small[0], small[1], None) / factor
        at = (self._points * factor).astype(int)
        rows = np.clip(at[:, 1], 0, flow.shape[0] - 1)
        columns = np.clip(at[:, 0], 0, flow.shape[1] - 1)
        return flow[rows, columns].astype(np.float32)


@dataclass(frozen=True)
class Described:
    """ORB points of a picture.

    Attributes:
        xy: positions, pixel centres at integers.
        signs: descriptors as -1 and 1; the inner product of two falls with their Hamming distance, and a matrix product
            takes half the time of OpenCV's matcher.
        shape: (height, width) of the picture.
    """

    xy: np.ndarray
    signs: np.ndarray
    shape: tuple[int, ...]


def describe_points(grey: np.ndarray) -> Described:
    """At most 1500 ORB points with their descriptors."""
    keys, bits = _cv2.ORB_create(1500, fastThreshold=7).detectAndCompute(grey, None)
    if bits is None:
        return Described(np.empty((0, 2), np.float32), np.empty((0, 256), np.float32), grey.shape)
    signs = 2 * np.unpackbits(bits, axis=1).astype(np.float32) - 1
    return Described(np.array([k.pt for k in keys], np.float32), signs, grey.shape)


def patch_correlation(
    first: np.ndarray,
    first_points: np.ndarray,
    second: np.ndarray,
    second_points: np.ndarray,
    radius: int = 5,
) -> np.ndarray:
    """Zero-mean correlation of the patches around matching points, [n] in [-1, 1]."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1).astype(np.float32)

    def patches(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        columns = points[:, :1].astype(np.float32) + x
        rows = points[:, 1:].astype(np.float32) + y
        sampled = cv2.remap(
            picture.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return sampled - sampled.mean(1, keepdims=True)

    if len(first_points) == 0:
        return np.empty(0)
    a, b = patches(first, first_points), patches(second, second_points)
    # One grey level of noise per pixel keeps blank patches from correlating.
    return (a * b).sum(1) / np.sqrt(((a * a).sum(1) + a.shape[1]) * ((b * b).sum(1) + b.shape[1]))


def matched_guess(first: Described, second: Described, points: np.ndarray) -> np.ndarray | None:
    """Where points of the first picture should be in the second, from matched descriptors; None where they disagree."""
    if min(len(first.xy), len(second.xy)) < 12:
        return None
    alike = first.signs @ second.signs.T
    there, back = alike.argmax(1), alike.argmax(0)
    mutual = back[there] == np.arange(len(there))
    if mutual.sum() < 12:
        return None
    source, target = first.xy[mutual], second.xy[there[mutual]]
    cv2.setRNGSeed(0)
    H, inlier = _cv2.findHomography(source, target, cv2.RANSAC, 0.02 * max(first.shape))
    if H is None or inlier.sum() < 12:
        return None
    return cv2.perspectiveTransform(points[:, None].astype(np.float64), H)[:, 0].astype(np.float32)


def detect_corners(
    grey: np.ndarray, taken: np.ndarray, config: TrackConfig, blocked: np.ndarray | None = None
) -> np.ndarray:
    """New corners [n, 2] (pixel centres at integers), spread over the picture and away from ``taken``."""
    room = config.max_points - len(taken)
    height, width = grey.shape
    if room <= 0 or min(height, width) < 16:
        return np.empty((0, 2), np.float32)
    picture = grey.astype(np.float32) / 255
    strength = _cv2.cornerMinEigenVal(picture, 5, 3)
    spacing = max(3, round(config.spacing * float(np.hypot(height, width))))
    kernel = np.ones((2 * spacing + 1, 2 * spacing + 1), np.uint8)
    peak = (strength >= cv2.dilate(strength, kernel)) & (strength > config.min_corner)
    free = np.ones((height, width), np.uint8)
    free[:4], free[-4:], free[:, :4], free[:, -4:] = 0, 0, 0, 0
    for x, y in taken:
        cv2.circle(free, (round(float(x)), round(float(y))), spacing, 0, -1)
    if blocked is not None:
        free[blocked] = 0
    rows, columns = np.nonzero(peak & (free > 0))
    if len(rows) == 0:
        return np.empty((0, 2), np.float32)
    # Rank within its cell of an 8 x 8 grid first, strength second: weak regions get their share.
    value = strength[rows, columns]
    cell = (rows * 8 // height) * 8 + columns * 8 // width
    order = np.lexsort((-value, cell))
    first = np.r_[True, cell[order][1:] != cell[order][:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order)) - start
    chosen = np.lexsort((-value, rank))[:room]
    corners = np.stack([columns[chosen], rows[chosen]], 1).astype(np.float32)
    refined = cv2.cornerSubPix(
        grey,
        corners[:, None].copy(),
        (3, 3),
        (-1, -1),
        (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.02),
    )
    return refined[:, 0]
