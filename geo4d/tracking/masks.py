"""Dynamic regions: what moves on its own, from motion alone, or masks that the user brings.

A frame is compared by dense flow with frames at several gaps before and after. Where the scene is rigid, every flow
vector must end on its epipolar segment (between the nearest and the farthest depth of the frame), and all of them must
agree on one depth. What does not fit is moving.

Axis names: H W pixels of the small pictures in which flow is computed, M neighbouring frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.errors import InputError
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.poses import inverse
from geo4d.tracking.solve import MotionCameras, single_thread
from geo4d.video.io import Video


@dataclass(frozen=True)
class MaskConfig:
    """Settings of the masks from motion.

    Attributes:
        gaps: frames between compared pictures, both ways.
        width: columns of the pictures in which flow is computed.
        noise: least spread of flow, pixels of these pictures.
        threshold: residual, in spreads, at which the probability is one half.
        memory: share of the probability that comes from the frame before, carried along the flow.
        least_area: smaller regions are dropped, share of the picture.
        edge_radius: how far the probability is spread to the edges of the picture, pixels of these pictures.
        contrast: how much more than noise a still thing must miss the colours to count as moving; 0 does not look.
        relative_noise: error of flow that is allowed for, share of its length.
        cut: probability from which a mask says True.
    """

    gaps: tuple[int, ...] = (1, 2, 4)
    width: int = 384
    noise: float = 0.2
    threshold: float = 3.0
    memory: float = 0.4
    least_area: float = 0.002
    edge_radius: int = 6
    contrast: float = 1.5
    relative_noise: float = 0.03
    cut: float = 0.4


def iter_motion_probability(
    motion: MotionCameras, frames: Iterable[Float[Tensor, "H W 3"]], config: MaskConfig | None = None
) -> Iterator[Float[Tensor, "H W"]]:
    """Probability that a pixel shows something moving, frame by frame; memory bounded by the largest gap.

    Args:
        motion: cameras of the video; only frames of the same shot are compared.
        frames: RGB in [0, 1], one per camera, all of one size, which is also the size of the result.
        config: see ``MaskConfig``.
    """
    config = config or MaskConfig()
    reach = max(config.gaps)
    pictures: OrderedDict[int, np.ndarray] = OrderedDict()
    flow = _FlowCache()
    source = enumerate(frames)
    size: tuple[int, int] | None = None
    before: np.ndarray | None = None
    num_frames = len(motion.c2w)
    for t in range(num_frames):
        while not pictures or next(reversed(pictures)) < min(t + reach, num_frames - 1):
            entry = next(source, None)
            if entry is None:
                break
            frame = entry[1]
            size = size or (frame.shape[0], frame.shape[1])
            pictures[entry[0]] = _small_grey(frame, config.width)
        if t not in pictures or size is None:
            raise ValueError(f"expected {num_frames} frames, got {t}")
        shot = motion.shot_of(t)
        if t == shot.start:
            before = None
        if motion.confidence[t] <= 0:
            current: np.ndarray = np.zeros(pictures[t].shape, np.float32)
        else:
            with single_thread():
                current = _probability(t, pictures, motion, flow, config)
        if before is not None:
            carried = _carry(before, flow.get(t, t - 1, pictures))
            current = (1 - config.memory) * current + config.memory * carried
        before = current
        yield torch.from_numpy(cv2.resize(current, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))
        while pictures and next(iter(pictures)) < t + 1 - reach:
            flow.forget(next(iter(pictures)))
            pictures.popitem(last=False)


def motion_masks(
    motion: MotionCameras,
    frames: Iterable[Float[Tensor, "H W 3"]],
    *,
    radius: float = 0.0,
    config: MaskConfig | None = None,
) -> Iterator[Bool[Tensor, "H W"]]:
    """True on moving things: the probability of ``iter_motion_probability`` thresholded, tidied and grown.

    Args:
        radius: how far to grow, pixels of ``frames``.
    """
    config = config or MaskConfig()
    for probability in iter_motion_probability(motion, frames, config):
        yield grow(tidy_mask(probability > config.cut, config.least_area), radius)


def grow(mask: Bool[Tensor, "H W"], radius: float) -> Bool[Tensor, "H W"]:
    """Every pixel within ``radius`` pixels of the mask."""
    if radius <= 0 or not bool(mask.any()):
        return mask
    distance = cv2.distanceTransform((~mask).numpy().astype(np.uint8), cv2.DIST_L2, 5)
    return torch.from_numpy(distance <= radius)


def tidy_mask(mask: Bool[Tensor, "H W"], least_area: float) -> Bool[Tensor, "H W"]:
    """Without specks and pinholes smaller than a share of the picture."""
    limit = least_area * mask.numel()

    def without_specks(m: np.ndarray) -> np.ndarray:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(m.astype(np.uint8), connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] >= limit
        keep[0] = False
        return keep[labels]

    filled = ~without_specks(~without_specks(mask.numpy()))
    return torch.from_numpy(filled & mask.numpy().any())


def mask_iou(predicted: Bool[Tensor, "*b H W"], reference: Bool[Tensor, "*b H W"]) -> float:
    """Intersection over union of all pixels; 1 where both are empty."""
    union = (predicted | reference).sum()
    return float((predicted & reference).sum() / union) if union > 0 else 1.0


def read_masks(
    path: str | Path, frame_numbers: Sequence[int], size: tuple[int, int]
) -> Iterator[Bool[Tensor, "H W"]]:
    """Masks from a video or a folder of pictures: True where bright.

    Args:
        frame_numbers: the frames wanted, numbered in the source video. A mask source with exactly as many frames as are
            wanted is taken as already cut to them.
        size: (height, width) of the result.
    Raises:
        InputError: too few masks.
    """
    with Video(path) as video:
        numbers = list(frame_numbers)
        if video.num_frames == len(numbers):
            numbers = list(range(len(numbers)))
        if max(numbers) >= video.num_frames:
            raise InputError(
                f"{path}: expected masks for {len(frame_numbers)} frames (up to number {max(numbers)}), "
                f"got {video.num_frames}"
            )
        for number in numbers:
            grey = video.read([number])[0].mean(-1).numpy()
            yield torch.from_numpy(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0.5)


class _FlowCache:
    """Dense flow between small pictures, each pair computed once."""

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._known: dict[tuple[int, int], np.ndarray] = {}

    def get(self, source: int, target: int, pictures: OrderedDict[int, np.ndarray]) -> np.ndarray:
        if (source, target) not in self._known:
            self._known[source, target] = self._dis.calc(pictures[source], pictures[target], None)
        return self._known[source, target]

    def forget(self, frame: int) -> None:
        self._known = {pair: f for pair, f in self._known.items() if frame not in pair}


def _small_grey(frame: Float[Tensor, "H W 3"], width: int) -> np.ndarray:
    rgb = frame.clamp(0, 1).mul(255).to(torch.uint8).numpy()
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    factor = min(1.0, width / grey.shape[1])
    shape = (max(16, round(grey.shape[1] * factor)), max(16, round(grey.shape[0] * factor)))
    return cv2.resize(grey, shape, interpolation=cv2.INTER_AREA)


def _carry(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A map of the other picture, [H, W] or [H, W, C], read where the flow leads."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(
        values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _probability(
    t: int,
    pictures: OrderedDict[int, np.ndarray],
    motion: MotionCameras,
    flow: _FlowCache,
    config: MaskConfig,
) -> np.ndarray:
    """Probability of frame ``t`` from its residual to the rigid scene."""
    shot = motion.shot_of(t)
    height, width = pictures[t].shape
    neighbours = [n for g in config.gaps for n in (t - g, t + g)]
    neighbours = [n for n in neighbours if shot.start <= n < shot.stop and n in pictures]
    neighbours = [n for n in neighbours if motion.confidence[n] > 0.05]
    if not neighbours:
        return np.zeros((height, width), np.float32)
    K = resize_intrinsics(motion.intrinsics.double(), motion.size, (height, width))
    segment = (0.0, 0.0)
    if shot.kind == "parallax" and bool(torch.isfinite(motion.depth_range[t]).all()):
        near, far = motion.depth_range[t].double().tolist()
        segment = (0.5 / far, 2.0 / near)
    seen = []
    for n in neighbours:
        relative = inverse(motion.c2w[n : n + 1].double())[0] @ motion.c2w[t].double()
        A = K[n] @ relative[:3, :3] @ torch.linalg.inv(K[t])
        b = K[n] @ relative[:3, 3]
        there, back = flow.get(t, n, pictures), flow.get(n, t, pictures)
        seen.append(_compare(there, back, A.numpy(), b.numpy(), segment))
    # one disparity (relative to the middle of the segment) for all neighbours
    strength = sum(s.trust * (s.slope_x * s.slope_x + s.slope_y * s.slope_y) for s in seen)
    best = sum(s.trust * (s.slope_x * s.miss_x + s.slope_y * s.miss_y) for s in seen)
    half = 0.5 * (segment[1] - segment[0])
    best = np.clip(best / np.maximum(strength, 1e-9), -half, half)
    total, squares = np.zeros_like(best), np.zeros_like(best)
    for n, s in zip(neighbours, seen, strict=True):
        shift_x, shift_y = best * s.slope_x, best * s.slope_y
        residual = cv2.magnitude(s.miss_x - shift_x, s.miss_y - shift_y)
        if config.contrast > 0:
            place = (s.rigid_x + shift_x, s.rigid_y + shift_y)
            residual *= _visible_change(pictures[t], pictures[n], place, config.contrast)
        # Flow errs by a share of its length.
        residual /= 1 + (config.relative_noise / config.noise) * s.length
        total += s.trust
        squares += s.trust * residual * residual
    # Slow things show at the larger gaps only: the mean of squares listens to the largest residuals.
    size = np.sqrt(squares / np.maximum(total, 1e-6))
    known = size[total > 0.5]
    # The noise of the rigid part: half of the picture may move, so a low quantile tells it.
    spread = max(config.noise, 3.0 * _quantile(known, 0.25) if len(known) else 0.0)
    score = (size / (config.threshold * spread)) ** 2
    probability = (1 - np.exp(-0.693 * score)) * np.minimum(total / (0.3 * len(neighbours)), 1)
    return guided_filter(pictures[t], probability, config.edge_radius)


@dataclass(frozen=True)
class _Comparison:
    """What the flow to one neighbour says about the rigid scene; maps [H, W], pixels.

    Attributes:
        rigid_x, rigid_y: where a still thing in the middle of its epipolar segment would be.
        slope_x, slope_y: how that place moves with disparity.
        miss_x, miss_y: from there to where the flow leads.
        length: of the flow.
        trust: in [0, 1]; there and back agree, inside the picture.
    """

    rigid_x: np.ndarray
    rigid_y: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray
    miss_x: np.ndarray
    miss_y: np.ndarray
    length: np.ndarray
    trust: np.ndarray


def _compare(
    there: np.ndarray, back: np.ndarray, A: np.ndarray, b: np.ndarray, segment: tuple[float, float]
) -> _Comparison:
    """Flow against the epipolar segments of a camera pair.

    Args:
        there, back: flow to the neighbour and from it, [H, W, 2].
        A, b: position(d) = (A pixel + d b)_xy / (...)_z for disparity d.
        segment: smallest and largest disparity.
    """
    height, width = there.shape[:2]
    A, b = A.astype(np.float32), b.astype(np.float32)
    x = np.arange(width, dtype=np.float32)[None] + np.float32(0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    base_x, base_y, base_z = (row[0] * x + (row[1] * y + row[2]) for row in A)

    def place(disparity: float) -> tuple[np.ndarray, np.ndarray]:
        over = 1 / np.maximum(base_z + np.float32(disparity) * b[2], np.float32(1e-6))
        d = np.float32(disparity)
        return (base_x + d * b[0]) * over, (base_y + d * b[1]) * over

    low, high = segment
    rigid_x, rigid_y = place(0.5 * (low + high))
    if high > low:
        # linearised over the segment by its two ends
        (low_x, low_y), (high_x, high_y) = place(low), place(high)
        over = np.float32(1 / (high - low))
        slope_x, slope_y = (high_x - low_x) * over, (high_y - low_y) * over
    else:
        slope_x = slope_y = np.zeros((height, width), np.float32)
    flow_x, flow_y = there[..., 0], there[..., 1]
    end_x, end_y = x + flow_x, y + flow_y
    returned = _carry(back, there)
    mismatch = cv2.magnitude(flow_x + returned[..., 0], flow_y + returned[..., 1])
    inside = (end_x >= 0) & (end_y >= 0) & (end_x < width) & (end_y < height)
    return _Comparison(
        rigid_x,
        rigid_y,
        slope_x,
        slope_y,
        end_x - rigid_x,
        end_y - rigid_y,
        cv2.magnitude(np.ascontiguousarray(flow_x), np.ascontiguousarray(flow_y)),
        np.exp(mismatch * mismatch * np.float32(-1 / 1.5**2)) * inside,
    )


def _visible_change(
    first: np.ndarray, second: np.ndarray, place: tuple[np.ndarray, np.ndarray], contrast: float
) -> np.ndarray:
    """In [0, 1]: does the second picture, read at ``place`` (x, y), differ from the first by more than noise?

    Flow wanders where there is no texture; there a still thing explains the pictures just as well.
    """
    half = np.float32(0.5)
    warped = cv2.remap(
        second, place[0] - half, place[1] - half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    difference = cv2.absdiff(warped, first).astype(np.float32)
    squared = cv2.blur(difference * difference, (7, 7))
    noise = max(1.0, _quantile(squared, 0.25) ** 0.5)
    return 1 - np.exp(squared * np.float32(-1 / (contrast * noise) ** 2))


def _quantile(values: np.ndarray, share: float) -> float:
    """Of at most about 10,000 of the values."""
    flat = values.reshape(-1)
    return float(np.quantile(flat[:: 1 + len(flat) // 10_000], share))


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int, softness: float = 4.0) -> np.ndarray:
    """Smooth ``values`` [H, W] within regions of the grey picture ``guide``, so that their borders lie on its edges.

    Args:
        radius: half side of the windows, pixels.
        softness: contrast in grey levels below which the picture says nothing.
    Source: He, Sun, Tang: Guided image filtering.
    """
    picture = guide.astype(np.float32)

    def mean(a: np.ndarray) -> np.ndarray:
        return cv2.blur(a, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean_i, mean_v = mean(picture), mean(values)
    slope = (mean(picture * values) - mean_i * mean_v) / (mean(picture * picture) - mean_i**2 + softness**2)
    offset = mean_v - slope * mean_i
    return np.clip(mean(slope) * picture + mean(offset), 0, 1).astype(np.float32)
