"""SIFT points matched by their descriptors: no weights, for wide turns and low frame rates."""

from __future__ import annotations

from collections import deque
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.tracks.licences import NO_WEIGHTS
from geo4d.tracks.matches import Matches

_cv2: Any = cv2
"""The same module where its type stubs are narrower than its functions."""

_LEAST_MATCHES = 16
"""Two pictures with fewer matches say too little about their epipolar lines: twice the eight that one answer takes."""


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
        if self._epipolar > 0:
            kept = near_epipolar_lines(source, target, self._epipolar)
            source, target, confidence = source[kept], target[kept], confidence[kept]
        return Matches(torch.from_numpy(source), torch.from_numpy(target), torch.from_numpy(confidence))


def near_epipolar_lines(source: np.ndarray, target: np.ndarray, distance: float) -> np.ndarray:
    """[M] True for matches [M, 2] within a distance (pixels) of the epipolar lines of most; all where none are known."""
    every = np.ones(len(source), bool)
    if len(source) < _LEAST_MATCHES:
        return every
    cv2.setRNGSeed(0)
    _, inlier = _cv2.findFundamentalMat(source, target, cv2.FM_RANSAC, distance, 0.999, 2000)
    return every if inlier is None else inlier[:, 0] > 0
