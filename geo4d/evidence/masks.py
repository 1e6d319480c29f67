"""Dynamic regions: what moves on its own, from motion alone, or masks that the user brings.

A frame is compared by dense flow with frames at several gaps before and after. Where the scene is rigid, every flow
vector must end on its epipolar segment (between the nearest and the farthest depth of the frame), all of them must agree
on one depth, and the colours found there must be the same. What fits neither before nor after is moving. Where there
is no texture, and flow tells nothing, the nearest surroundings of the same brightness decide.

Axis names: H W pixels of the frames in public functions, of the small pictures in which flow is computed inside.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.cameras.types import MotionCameras
from geo4d.errors import InputError
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.poses import inverse
from geo4d.optimise.threads import one_thread
from geo4d.video.io import Video


@dataclass(frozen=True)
class MaskConfig:
    """Settings of the masks from motion.

    Attributes:
        gaps: frames between compared pictures, both ways.
        width: columns of the pictures in which flow is computed.
        noise: least spread of flow, pixels of these pictures.
        threshold: residual of flow, in spreads, that is one half likely to be motion.
        memory: share of the probability that comes from the frame before, carried along the flow.
        least_area: smaller regions are dropped, share of the picture.
        edge_radius: how far the probability is spread to the edges of the picture, pixels of these pictures.
        contrast: misfit of colours, in spreads, that is one half likely to be motion.
        relative_noise: error of flow that is allowed for, share of its length.
        cut: probability from which a mask says True.
    """

    gaps: tuple[int, ...] = (1, 2, 4)
    width: int = 384
    noise: float = 0.12
    threshold: float = 2.0
    memory: float = 0.4
    least_area: float = 0.002
    edge_radius: int = 8
    contrast: float = 2.0
    relative_noise: float = 0.02
    cut: float = 0.5


def iter_motion_probability(
    motion: MotionCameras, frames: Iterable[Float[Tensor, "H W 3"]], config: MaskConfig | None = None
) -> Iterator[Float[Tensor, "H W"]]:
    """Probability in [0, 1] that a pixel shows something moving, frame by frame; memory bounded by the largest gap.

    A frame whose camera is not known (confidence 0) has only what is carried on from the frame before.

    Args:
        motion: cameras of the video; only frames of the same shot are compared.
        frames: RGB in [0, 1], one per camera, all of one size, H W, which is also the size of the result.
        config: see ``MaskConfig``.
    Raises:
        ValueError: fewer frames than cameras.
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
            with one_thread():
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


MaskFormat = Literal["bright", "xmem"]
"""``bright``: bright where things move. ``xmem``: numbers of objects, 0 for the background, as XMem and DAVIS save them:
one PNG file per frame, with a palette whose first colour is black, or without one."""


def read_masks(
    path: str | Path,
    frame_numbers: Sequence[int],
    size: tuple[int, int],
    mask_format: MaskFormat = "bright",
) -> Iterator[Bool[Tensor, "H W"]]:
    """Masks from a video or a folder of pictures: True where things move.

    Args:
        frame_numbers: the frames wanted, numbered in the source video. A mask source with exactly as many frames as are
            wanted is taken as already cut to them.
        size: (height, width) of the result.
    Raises:
        InputError: too few masks, or files that cannot hold numbers of objects.
    """
    if mask_format == "xmem" and not any(Path(path).glob("*.png")):
        raise InputError(
            f"expected a folder of PNG files with object numbers at {path}, as XMem saves them, found none; other "
            "pictures and videos blur the numbers: for masks that are bright where things move leave out --mask-format"
        )
    with Video(path, pictures="*.png" if mask_format == "xmem" else None) as video:
        numbers = list(frame_numbers)
        if video.num_frames == len(numbers):
            numbers = list(range(len(numbers)))
        if max(numbers) >= video.num_frames:
            raise InputError(
                f"{path}: expected masks for {len(frame_numbers)} frames (up to number {max(numbers)}), "
                f"got {video.num_frames}"
            )
        for number in numbers:
            picture = video.read([number])[0]
            # Every colour of the palette but the first stands for an object, however dark it is.
            marked = picture.mean(-1) if mask_format == "bright" else (picture > 0).any(-1).float()
            grey = marked.numpy()
            yield torch.from_numpy(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0.5)


class _FlowCache:
    """Dense flow between small pictures, each pair computed once."""

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        # Twice as fine as the preset: thin movers keep their own flow. Three times the cost, well below "medium".
        self._dis.setFinestScale(1)
        self._dis.setVariationalRefinementIterations(2)
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
    """Probability of frame ``t``, from its flow and its colours against the rigid scene."""
    shot = motion.shot_of(t)
    picture = pictures[t]
    height, width = picture.shape
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
    pairs = []
    for n in neighbours:
        relative = inverse(motion.c2w[n : n + 1].double())[0] @ motion.c2w[t].double()
        A = K[n] @ relative[:3, :3] @ torch.linalg.inv(K[t])
        b = K[n] @ relative[:3, 3]
        there, back = flow.get(t, n, pictures), flow.get(n, t, pictures)
        pairs.append(_Pair(n > t, pictures[n], there, back, A.numpy(), b.numpy()))
    disparity = _shared_disparity(pairs, segment)
    texture = _texture(picture)
    residual, change = np.full_like(disparity, np.inf), np.full_like(disparity, np.inf)
    for later in (False, True):
        side = [pair for pair in pairs if pair.later == later]
        if side:
            # What is still may be hidden before or after, rarely both; what moves fits neither.
            r, c = _side_evidence(side, picture, texture, disparity, config)
            residual, change = np.minimum(residual, r), np.minimum(change, c)
    trust = sum(pair.trust for pair in pairs) / np.float32(len(pairs))
    apart = 1 - np.exp2(-np.where(np.isfinite(residual), residual, 0) / config.threshold**2)
    differs = 1 - np.exp2(-np.where(np.isfinite(change), change, 0) / config.contrast**2)
    moving = apart * differs * trust * trust
    # Where there is texture, colours that fit speak for a still thing; where there is none, neighbours decide.
    still = (1 - differs) * (1 - 0.5 * apart) * texture / (texture + 1) + 0.02 * (1 - apart)
    share = guided_filter(picture, moving, config.edge_radius) / np.maximum(
        guided_filter(picture, moving + still, config.edge_radius), 1e-4
    )
    return np.interp(share, *_CALIBRATION).astype(np.float32)


_CALIBRATION = ((0.0, 0.15, 0.5, 1.0), (0.0, 0.5, 0.8, 1.0))
"""Share of the evidence that says moving -> probability; a half is where masks of rendered scenes fit best."""


class _Pair:
    """The current picture and a neighbour; maps [H, W], pixels.

    Attributes:
        later: the neighbour comes after the picture.
        other: the neighbour.
        end_x, end_y: where flow leads.
        length: of the flow.
        trust: in [0, 1]; there and back agree, inside the picture.
    """

    def __init__(
        self,
        later: bool,
        other: np.ndarray,
        there: np.ndarray,
        back: np.ndarray,
        A: np.ndarray,
        b: np.ndarray,
    ) -> None:
        """Args:
        there, back: flow to the neighbour and from it, [H, W, 2].
        A, b: position(d) = (A pixel + d b)_xy / (...)_z for disparity d.
        """
        height, width = there.shape[:2]
        x = np.arange(width, dtype=np.float32)[None] + np.float32(0.5)
        y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
        self.later, self.other = later, other
        self._base = [row[0] * x + (row[1] * y + row[2]) for row in A.astype(np.float32)]
        self._step = b.astype(np.float32)
        flow_x, flow_y = there[..., 0], there[..., 1]
        self.end_x, self.end_y = x + flow_x, y + flow_y
        self.length = np.sqrt(flow_x * flow_x + flow_y * flow_y)
        missing = there + _carry(back, there)
        squared = missing[..., 0] ** 2 + missing[..., 1] ** 2
        self.trust = np.exp(squared * np.float32(-1 / 1.5**2)) * self._inside(self.end_x, self.end_y)

    def place(self, disparity: np.ndarray | np.floating) -> tuple[np.ndarray, np.ndarray]:
        """Where a still thing of a disparity would be."""
        over = 1 / np.maximum(self._base[2] + disparity * self._step[2], np.float32(1e-6))
        return (
            (self._base[0] + disparity * self._step[0]) * over,
            (self._base[1] + disparity * self._step[1]) * over,
        )

    def change(self, picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared difference of colour around a place of the neighbour, grey levels, and whether it can be seen."""
        half = np.float32(0.5)
        warped = cv2.remap(self.other, x - half, y - half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = cv2.absdiff(warped, picture).astype(np.float32)
        return cv2.blur(difference * difference, (5, 5)), self._inside(x, y)

    def _inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        height, width = self.other.shape
        return (x >= 0) & (y >= 0) & (x < width) & (y < height)


def _shared_disparity(pairs: Sequence[_Pair], segment: tuple[float, float]) -> np.ndarray:
    """The disparity per pixel on which the flow to all neighbours agrees best, within the segment."""
    low, high = (np.float32(end) for end in segment)
    middle = np.float32(0.5) * (low + high)
    strength, best = (np.zeros(pairs[0].length.shape, np.float32) for _ in range(2))
    if high <= low:
        return best
    for pair in pairs:
        # linearised over the segment by its two ends
        (low_x, low_y), (high_x, high_y) = pair.place(low), pair.place(high)
        rigid_x, rigid_y = pair.place(middle)
        slope_x, slope_y = (high_x - low_x) / (high - low), (high_y - low_y) / (high - low)
        strength += pair.trust * (slope_x * slope_x + slope_y * slope_y)
        best += pair.trust * (slope_x * (pair.end_x - rigid_x) + slope_y * (pair.end_y - rigid_y))
    return np.clip(middle + best / np.maximum(strength, np.float32(1e-9)), low, high)


def _side_evidence(
    side: Sequence[_Pair],
    picture: np.ndarray,
    texture: np.ndarray,
    disparity: np.ndarray,
    config: MaskConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """How far the neighbours of one side are from the rigid scene: mean squares of flow and of colour, in spreads.

    Both are infinite where nothing is known. Slow things show at the larger gaps only, and a mean of squares listens to
    the largest residuals. Flow wanders where there is no texture; there a still thing explains the colours just as well.
    """
    trust, residual, seen, change = (np.zeros_like(disparity) for _ in range(4))
    for pair in side:
        x, y = pair.place(disparity)
        miss_x, miss_y = pair.end_x - x, pair.end_y - y
        miss = np.sqrt(miss_x * miss_x + miss_y * miss_y)
        known = miss[pair.trust > 0.5]
        # The noise of the rigid part: half of the picture may move, so a low quantile tells it.
        spread = np.hypot(config.noise, 1.5 * _quantile(known, 0.4) if len(known) else 0.0)
        # Flow errs by a share of its length.
        whitened = miss / (np.float32(spread) + np.float32(config.relative_noise) * pair.length)
        trust += pair.trust
        residual += pair.trust * whitened * whitened
        squared, visible = pair.change(picture, x, y)
        noise = max(1.0, _quantile(squared, 0.25))
        seen += visible
        # Half a pixel of misplacement is forgiven.
        change += visible * squared / np.float32(noise) / (2 + texture * np.float32(0.25 / noise))
    return (
        np.where(trust > 0.5, residual / np.maximum(trust, 1e-6), np.inf),
        np.where(seen > 0.5, change / np.maximum(seen, 1e-6), np.inf),
    )


def _texture(picture: np.ndarray) -> np.ndarray:
    """Mean squared gradient of a grey picture around every pixel, (grey levels per pixel)^2."""
    dx, dy = (cv2.Sobel(picture, cv2.CV_32F, i, 1 - i, scale=1 / 8) for i in (1, 0))
    return cv2.blur(dx * dx + dy * dy, (5, 5))


def _quantile(values: np.ndarray, share: float) -> float:
    """Of at most about 10,000 of the values."""
    flat = values.reshape(-1)
    return float(np.quantile(flat[:: 1 + len(flat) // 10_000], share))


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int, softness: float = 4.0) -> np.ndarray:
    """Smooth ``values`` [H, W] within regions of the grey picture ``guide``, so that their borders lie on its edges.

    No result is below 0.

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
    return np.maximum(mean(slope) * picture + mean(offset), 0).astype(np.float32)
