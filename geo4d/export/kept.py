"""Which pixels become points: the filters of every point export and of the viewer, and how much they keep."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from geo4d.geometry.maps import depth_edges
from geo4d.types import FrameArray, Reconstruction

CONFIDENT = 0.5
"""By default no pixel this confident is left out: its depth is more likely right (within 10 %) than not."""

DEFAULT_SHARE = 0.85
"""The default threshold keeps this share of the pixels with depth, and of the moving ones, edges counted as lost."""

SHARE_OF_SHARP = 0.95
"""Where the edge filter alone leaves less than ``DEFAULT_SHARE``, the threshold keeps this share of what it leaves."""

LEAST_CONFIDENCE = 0.005
"""Below this nothing is kept by default, nor counted in a share: what shows no picture (black frames, bars) has none."""

MOVING = 0.5
"""A pixel moves from this value of ``dynamic`` on."""

_FRAMES = 32
_PIXELS = 1 << 14
_FEW = 64


def default_confidence_threshold(
    reconstruction: Reconstruction, frames: Sequence[int] | None = None, *, edge_step: float = 0.1
) -> float:
    """The confidence below which points are left out unless the user says otherwise.

    ``CONFIDENT``, lowered until ``DEFAULT_SHARE`` of the finite pixels and of the moving ones are kept
    (``SHARE_OF_SHARP`` of those that the edge filter leaves, where that is less), but not below ``LEAST_CONFIDENCE``.
    It is taken from all frames of the scenes that ``frames`` belong to, so that exports of single
    frames and of the whole agree.

    Args:
        frames: frames that are shown or exported; None takes all.
        edge_step: of the edge filter that runs beside it.
    """
    chosen = _scene_frames(reconstruction, frames)
    return confidence_threshold(
        reconstruction.depth, reconstruction.confidence, reconstruction.dynamic, chosen, edge_step=edge_step
    )


def confidence_threshold(
    depth: FrameArray,
    confidence: FrameArray,
    dynamic: FrameArray | None,
    frames: Sequence[int] | np.ndarray | None = None,
    *,
    edge_step: float,
) -> float:
    """The default threshold (see ``default_confidence_threshold``) of maps [T, H, W], which are read frame by frame.

    Args:
        frames: frames to take it from; None takes all.
    """
    chosen = np.arange(depth.shape[0]) if frames is None else np.asarray(frames)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), _FRAMES)).round().astype(int))]
    finite, moving = _Sample(), _Sample()
    for frame in chosen:
        z, certain = np.asarray(depth[frame], np.float32), np.asarray(confidence[frame], np.float32)
        has_depth = np.isfinite(z) & (certain >= LEAST_CONFIDENCE)
        sharp = kept_mask(z, certain, min_confidence=LEAST_CONFIDENCE, edge_step=edge_step)
        finite.add(has_depth, sharp, certain)
        if dynamic is not None:
            moves = has_depth & (np.asarray(dynamic[frame], np.float32) >= MOVING)
            moving.add(moves, sharp & moves, certain)
    return max(min(CONFIDENT, finite.threshold(), moving.threshold()), LEAST_CONFIDENCE)


def kept_mask(
    depth: Float[np.ndarray, "H W"],
    confidence: Float[np.ndarray, "H W"],
    *,
    min_confidence: float,
    edge_step: float,
) -> Bool[np.ndarray, "H W"]:
    """True where a pixel becomes a point.

    Args:
        depth: z-depth; only finite values are kept.
        min_confidence: least confidence kept, in [0, 1].
        edge_step: pixels at depth jumps above this relative step are left out; 0 keeps them.
    """
    keep = np.isfinite(depth) & (confidence >= min_confidence)
    if edge_step > 0:
        keep &= ~depth_edges(torch.from_numpy(np.float32(depth)), relative_step=edge_step).numpy()
    return keep


@dataclass
class KeptShare:
    """Counts what the filters keep of the pixels with depth, over frames.

    Attributes:
        min_confidence, edge_step: of the filters that are counted.
    """

    min_confidence: float
    edge_step: float
    finite: int = 0
    confident: int = 0
    kept: int = 0
    moving: int = 0
    moving_kept: int = 0
    most_confident: float = 0.0

    def add(
        self,
        depth: Float[np.ndarray, "H W"],
        confidence: Float[np.ndarray, "H W"],
        keep: Bool[np.ndarray, "H W"],
        dynamic: Float[np.ndarray, "H W"] | None,
    ) -> None:
        """Count one frame; ``keep`` is what ``kept_mask`` gave for it."""
        finite = np.isfinite(depth)
        count = int(finite.sum())
        self.finite += count
        self.confident += int((finite & (confidence >= self.min_confidence)).sum())
        self.kept += int((keep & finite).sum())
        if count:
            self.most_confident = max(self.most_confident, float(np.nanmax(confidence[finite], initial=0.0)))
        if dynamic is not None:
            moves = finite & (dynamic >= MOVING)
            self.moving += int(moves.sum())
            self.moving_kept += int((keep & moves).sum())

    @property
    def share(self) -> float:
        """Kept of the pixels with depth, in [0, 1]; 0 when there are none."""
        return self.kept / self.finite if self.finite else 0.0

    @property
    def moving_share(self) -> float | None:
        """Kept of the moving pixels with depth; None when nothing moves."""
        return self.moving_kept / self.moving if self.moving else None

    def words(self) -> str:
        """One line: what is kept and by which filters."""
        moving = "" if self.moving_share is None else f" and {_percent(self.moving_share)} of the moving ones"
        edges = f", no depth step above {self.edge_step:g}" if self.edge_step > 0 else ""
        return (
            f"points from {_percent(self.share)} of the pixels with depth{moving} "
            f"(confidence of at least {self.min_confidence:.3g}{edges})"
        )

    def advice(self) -> str:
        """Which option leaves out how much."""
        low = 1 - self.confident / self.finite if self.finite else 0.0
        return (
            f"{_percent(low)} of the pixels with depth are below --min-confidence {self.min_confidence:.3g} "
            f"(the most confident one has {self.most_confident:.3g}), "
            f"{_percent(max(1 - self.share - low, 0))} are at depth steps above --edge-step {self.edge_step:g}; "
            "--min-confidence 0 --edge-step 0 keeps all"
        )

    @property
    def is_low(self) -> bool:
        """Less than half is kept of the pixels with depth, or of the moving ones among them."""
        return self.share < 0.5 or (self.moving_share is not None and self.moving_share < 0.5)

    def say(self, log: logging.Logger) -> None:
        """Log the share; as a warning with advice when it is low."""
        if self.is_low and self.finite:
            log.warning("only %s; %s", self.words(), self.advice())
        else:
            log.info("%s", self.words())


class _Sample:
    """Confidences of pixels that could be kept, beside the number of pixels they are a share of."""

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []
        self._total = 0.0

    def add(self, pixels: np.ndarray, candidates: np.ndarray, confidence: np.ndarray) -> None:
        step = max(1, pixels.size // _PIXELS)
        thinned = (slice(None, None, step),)
        self._total += int(pixels.ravel()[thinned].sum())
        self._values.append(confidence.ravel()[thinned][candidates.ravel()[thinned]])

    def threshold(self) -> float:
        """The largest one that keeps the default share; infinity when there are too few pixels to speak of."""
        values = np.sort(np.concatenate(self._values))[::-1] if self._values else np.zeros(0)
        if self._total < _FEW or not len(values):
            return np.inf
        needed = min(DEFAULT_SHARE * self._total, SHARE_OF_SHARP * len(values))
        return float(values[int(np.ceil(needed)) - 1])


def _scene_frames(reconstruction: Reconstruction, frames: Sequence[int] | None) -> np.ndarray:
    every = np.arange(reconstruction.num_frames)
    if frames is None or reconstruction.scene is None:
        return every
    scene = np.asarray(reconstruction.scene)
    return every[np.isin(scene, scene[list(frames)])]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.1 else f"{100 * share:.2g} %"
