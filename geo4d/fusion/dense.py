"""Dense maps, one frame at a time: every pixel's depth minimises its own residuals, given the alignment.

A frame is a pure function of the alignment and of the windows that see it, so the work can start at any frame.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.fusion.alignment import Alignment
from geo4d.fusion.moving import flow_probability, free_space_probability, rigid_flow, seen_through
from geo4d.fusion.pixels import PixelResiduals
from geo4d.fusion.samples import point_weight
from geo4d.geometry.cameras import camera_rays
from geo4d.geometry.poses import similarity_parts, transform
from geo4d.types import FrameMaps, Prediction

CONFIDENCE_HALF = 0.1
"""Relative depth error at which the confidence is one half."""

CPU_CHUNK, DEVICE_CHUNK = 32_768, 2**20
"""Pixels that are solved together."""

MOVING_STEPS = (-8, -3, 3, 8)
"""Neighbours, in frames, that the dynamic probability looks at: near enough to overlap, far enough to show motion."""


def fuse_pixels(
    rays: Float[Tensor, "3 P"],
    points: Float[Tensor, "M 3 P"],
    weight: Float[Tensor, "M P"],
    aligned: Float[Tensor, "M P"],
    disparity_weight: Float[Tensor, "M P"],
    *,
    num_steps: int = 3,
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Depth of every pixel that minimises sum w |d ray - q| + sum b |1/d - c| over its M windows.

    Not convex because of 1 / d, so the depths that the windows propose are tried first and the cheapest is polished by
    reweighted Newton steps. At most pixels one of the proposals is the minimum already: three more steps than three
    change AbsRel by less than 0.0001 (``benchmarks/alignment.py``, three sizes).

    Args:
        points: of the windows, in camera axes.
        aligned: disparity of the windows in the unit of the world.
    Returns:
        depth (arbitrary but positive where no window has weight), and the weighted mean distance from the windows'
        points (0 where there are none).
    """
    power = (rays * rays).sum(0)
    nearest = torch.einsum("mcp,cp->mp", points, rays).div_(power)
    miss = torch.addcmul(points, rays, nearest[:, None], value=-1).square_().sum(1)
    with_disparity = bool((disparity_weight > 0).any())
    pixels = PixelResiduals(
        power,
        nearest,
        miss,
        weight,
        aligned if with_disparity else None,
        disparity_weight if with_disparity else None,
        total=lambda values: values.sum(0),
        spread=lambda values: values,
    )
    best_cost = torch.full_like(power, torch.inf)
    best = torch.ones_like(power)
    proposals = [(near.clamp(1e-2, 1e3), counts) for near, counts in zip(nearest, weight, strict=True)]
    if with_disparity:
        proposals += [
            (1 / d.clamp(min=2e-2), counts) for d, counts in zip(aligned, disparity_weight, strict=True)
        ]
    for candidate, counts in proposals:
        value = torch.where(counts > 0, pixels.cost(candidate), torch.inf)
        better = value < best_cost
        best_cost = torch.where(better, value, best_cost)
        best = torch.where(better, candidate, best)
    log_depth, width = best.log(), 3e-3
    for _ in range(num_steps):
        log_depth = pixels.newton_step(log_depth, width, largest=0.3)
        width = max(0.6 * width, 3e-4)
    depth = log_depth.exp()
    depth = torch.where(pixels.cost(depth) < best_cost, depth, best)
    distance = (pixels.distance(depth) * weight).sum(0) / weight.sum(0).clamp(min=1e-12)
    return depth, distance


class _WindowCache:
    """Predictions by number; keeps the few that the current frames need."""

    def __init__(self, predictions: Sequence[Prediction], capacity: int) -> None:
        self.predictions, self.capacity = predictions, capacity
        self.held: dict[int, Prediction] = {}

    def get(self, window: int) -> Prediction:
        prediction = self.held.pop(window, None)
        if prediction is None:
            while len(self.held) >= self.capacity:
                self.held.pop(next(iter(self.held)))
            prediction = self.predictions[window]
        self.held[window] = prediction  # most recently used last
        return prediction

    def keep_only(self, windows: set[int]) -> None:
        for window in [w for w in self.held if w not in windows]:
            del self.held[window]


def windows_of_frames(alignment: Alignment) -> list[list[tuple[int, int]]]:
    """(window, position inside it) of every frame."""
    result: list[list[tuple[int, int]]] = [[] for _ in range(alignment.num_frames)]
    for window, frames in enumerate(alignment.window_frames):
        for local, frame in enumerate(frames.tolist()):
            result[frame].append((window, local))
    return result


def iter_depth(
    alignment: Alignment,
    predictions: Sequence[Prediction],
    *,
    frames: Iterable[int] | None = None,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> Iterator[FrameMaps]:
    """Depth and confidence of the frames, in the order asked for; holds only the windows that see a frame.

    Args:
        predictions: the sequence that the alignment was made from.
        frames: which, by default all; increasing order reads every window once.
        chunk: pixels at a time; None: as many as fit a CPU's cache, or many on an accelerator.
    Raises:
        ValueError: the predictions are not those of the alignment.
    """
    if len(predictions) != len(alignment.window_frames):
        raise ValueError(
            f"expected the {len(alignment.window_frames)} predictions of the alignment, got {len(predictions)}"
        )
    seen_by = windows_of_frames(alignment)
    last_frame = [int(f.max()) for f in alignment.window_frames]
    cache = _WindowCache(predictions, 2 * max((len(s) for s in seen_by), default=1) + 2)
    previous = -1
    for frame in range(alignment.num_frames) if frames is None else frames:
        if frame >= previous:
            cache.keep_only({w for w in cache.held if last_frame[w] >= frame})
        previous = frame
        views = [(window, local, cache.get(window)) for window, local in seen_by[frame]]
        yield fuse_frame(alignment, frame, views, device=device, chunk=chunk)


def iter_dense(
    alignment: Alignment,
    predictions: Sequence[Prediction],
    *,
    frames: Iterable[int] | None = None,
    with_moving: bool = True,
    flow: Callable[[int, int], Float[Tensor, "H W 2"] | None] | None = None,
    device: torch.device | str | None = None,
) -> Iterator[FrameMaps]:
    """Depth, confidence and dynamic probability of the frames, one after another.

    What comes for a frame does not depend on where the iteration started. Memory: the windows that see a frame, and
    the depth of the few neighbours that the dynamic probability looks at.

    Args:
        predictions: the sequence that the alignment was made from.
        frames: which, in increasing order; by default all.
        with_moving: False leaves the dynamic probability out (None); it is also None without poses.
        flow: (frame, other frame) -> displacement of every pixel in pixels of the maps, or None where unknown.
    Raises:
        ValueError: the predictions are not those of the alignment.
    """
    wanted = list(range(alignment.num_frames) if frames is None else frames)
    if not with_moving or alignment.c2w is None:
        yield from iter_depth(alignment, predictions, frames=wanted, device=device)
        return
    neighbours = {frame: _neighbours(alignment, frame) for frame in wanted}
    needed = sorted(set(wanted).union(*neighbours.values()) if wanted else [])
    source = iter_depth(alignment, predictions, frames=needed, device=device)
    held: dict[int, FrameMaps] = {}
    for frame in wanted:
        held = {n: maps for n, maps in held.items() if n >= frame + min(MOVING_STEPS)}
        while not held or max(held) < max([frame, *neighbours[frame]]):
            maps = next(source)
            held[maps.frame_index] = maps
        others = [held[number] for number in neighbours[frame]]
        yield replace(held[frame], dynamic=_moving(alignment, held[frame], others, flow))


def _neighbours(alignment: Alignment, frame: int) -> list[int]:
    """Frames that the dynamic probability of a frame looks at: in the same scene, seen by good windows."""
    near = [frame + step for step in MOVING_STEPS]
    return [
        other
        for other in near
        if 0 <= other < alignment.num_frames
        and int(alignment.scene[other]) == int(alignment.scene[frame])
        and bool(alignment.reliable[other])
    ]


def _moving(
    alignment: Alignment,
    maps: FrameMaps,
    others: Sequence[FrameMaps],
    flow: Callable[[int, int], Tensor | None] | None,
) -> Tensor:
    """Probability in [0, 1] that each pixel moves; 0 where no neighbour says anything."""
    assert alignment.c2w is not None
    result = torch.zeros_like(maps.depth)
    excess = []
    c2w, intrinsics = alignment.c2w.to(maps.depth), alignment.intrinsics.to(maps.depth)
    frame = maps.frame_index
    for other in others:
        number = other.frame_index
        rigid, z = rigid_flow(maps.depth, intrinsics[frame], c2w[frame], intrinsics[number], c2w[number])
        excess.append(seen_through(maps.depth, rigid, z, other.depth))
        observed = None if flow is None else flow(frame, number)
        if observed is not None:
            result = torch.maximum(result, flow_probability(observed.to(maps.depth), rigid))
    if excess:
        result = torch.maximum(result, free_space_probability(excess))
    return torch.where(torch.isfinite(maps.depth), result, torch.zeros_like(result))


def fuse_frame(
    alignment: Alignment,
    frame: int,
    views: Sequence[tuple[int, int, Prediction]],
    *,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> FrameMaps:
    """Depth and confidence of one frame from the windows that see it.

    Args:
        views: (window, position of the frame inside it, prediction).
    """
    height, width = alignment.size
    num_pixels = height * width
    config = alignment.config
    if chunk is None:
        chunk = CPU_CHUNK if torch.device(device or "cpu").type == "cpu" else DEVICE_CHUNK
    if not views:
        empty = torch.full((height, width), torch.nan, device=device)
        return FrameMaps(frame, empty, torch.zeros_like(empty))
    rays = camera_rays(alignment.intrinsics[frame].float().to(device), (height, width)).reshape(-1, 3).T
    if alignment.point_frame != "window":
        # Camera-frame points keep their own z, whatever their rays.
        rays = torch.zeros_like(rays)
        rays[2] = 1
    said = [_said_by_window(alignment, frame, view, device) for view in views]
    points, weight, aligned, disparity_weight, precision = (
        torch.stack([getattr(one, name) for one in said])
        for name in ("points", "weight", "aligned", "disparity_weight", "precision")
    )
    depth = torch.empty(num_pixels, device=device)
    distance = torch.empty(num_pixels, device=device)
    for low in range(0, num_pixels, chunk):
        part = slice(low, min(num_pixels, low + chunk))
        depth[part], distance[part] = fuse_pixels(
            rays[:, part], points[..., part], weight[:, part], aligned[:, part], disparity_weight[:, part]
        )
    sky_votes = torch.zeros(num_pixels, device=device)
    valid_votes = []
    for one, (window, _, _) in zip(said, views, strict=True):
        window_weight = float(alignment.window_weight[window])
        sky_votes += window_weight * one.sky
        valid_votes.append((one.weight > 0).float() * window_weight)
    votes = torch.stack(valid_votes).sum(0)
    seen = weight.sum(0) > 0
    by_disparity = disparity_weight.sum(0) > 0
    is_sky = (sky_votes > votes) if config.mask_sky else (sky_votes > 0) & ~seen & ~by_disparity
    depth = torch.where(seen | by_disparity, depth, torch.nan)
    depth = torch.where(is_sky, torch.inf, depth)
    confidence = _confidence(depth, distance, precision, seen, is_sky, sky_votes, votes)
    signs = _signs(depth, distance, precision, seen).reshape(2, height, width)
    return FrameMaps(frame, depth.reshape(height, width), confidence.reshape(height, width), signs=signs)


@dataclass(frozen=True)
class _Said:
    """What one window says of the P pixels of a frame; zeros where it says nothing.

    Attributes:
        points: in camera axes.
        weight: of the points.
        precision: 1 / spread of the points in the unit of the world; 0 where none is reported.
        aligned: disparity in the unit of the world.
        disparity_weight: of it.
        sky: where the window sees none but sky.
    """

    points: Float[Tensor, "3 P"]
    weight: Float[Tensor, " P"]
    precision: Float[Tensor, " P"]
    aligned: Float[Tensor, " P"]
    disparity_weight: Float[Tensor, " P"]
    sky: Bool[Tensor, " P"]


def _said_by_window(
    alignment: Alignment,
    frame: int,
    view: tuple[int, int, Prediction],
    device: torch.device | str | None,
) -> _Said:
    window, local, prediction = view
    points, weight, precision = _points_of_window(alignment, frame, view, device)
    aligned, disparity_weight, far = _disparity_of_window(alignment, view, device)
    if prediction.sky is not None:
        sky = prediction.sky[local].to(device).reshape(-1)
    else:
        sky = far & (weight <= 0)
    weighted = weight * float(alignment.window_weight[window])
    return _Said(points, weighted, precision, aligned, disparity_weight, sky)


def _points_of_window(
    alignment: Alignment,
    frame: int,
    view: tuple[int, int, Prediction],
    device: torch.device | str | None,
) -> tuple[Float[Tensor, "3 P"], Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Points in camera axes, their weights (the window's own left out) and precisions."""
    window, local, prediction = view
    num_pixels = alignment.size[0] * alignment.size[1]
    if prediction.point_map is None or not alignment.config.use_points:
        nothing = torch.zeros(num_pixels, device=device)
        return torch.zeros(3, num_pixels, device=device), nothing, nothing
    raw = prediction.point_map[local].to(device).float()
    if prediction.point_frame == "camera" and prediction.c2w is not None:
        raw = transform(prediction.c2w[local].to(device).float(), raw)
    uncertainty = prediction.point_uncertainty
    weight = point_weight(
        prediction,
        raw,
        None if uncertainty is None else uncertainty[local].to(device),
        None if prediction.valid is None else prediction.valid[local].to(device),
        float(alignment.point_unit[window]),
        alignment.config.weight_limit,
    ).reshape(-1)
    points = _to_camera(alignment, frame, window, torch.nan_to_num(raw).reshape(-1, 3))
    if uncertainty is None:
        return points, weight, torch.zeros(num_pixels, device=device)
    scale, _, _ = similarity_parts(alignment.window_similarity[window])
    sigma = float(scale) * uncertainty[local].to(device).float().reshape(-1)
    return points, weight, torch.where(weight > 0, 1 / sigma.clamp(min=1e-9), 0.0)


def _disparity_of_window(
    alignment: Alignment, view: tuple[int, int, Prediction], device: torch.device | str | None
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Bool[Tensor, " P"]]:
    """Disparity in the unit of the world, its weight, and where it says sky."""
    window, local, prediction = view
    config = alignment.config
    if prediction.disparity is None or not config.use_disparity:
        nothing = torch.zeros(alignment.size[0] * alignment.size[1], device=device)
        return nothing, nothing, nothing.bool()
    disparity = prediction.disparity[local].to(device).float().reshape(-1)
    finite = torch.isfinite(disparity)
    far = finite & (disparity <= config.min_disparity)
    counts = finite & ~far
    if config.mask_sky and prediction.sky is not None:
        counts &= ~prediction.sky[local].to(device).reshape(-1)
    aligned = float(alignment.disparity_scale[window]) * torch.nan_to_num(disparity)
    aligned = aligned + float(alignment.disparity_shift[window])
    return aligned, float(alignment.disparity_weight[window]) * counts, far


def _to_camera(alignment: Alignment, frame: int, window: int, raw: Tensor) -> Tensor:
    """Window points in the axes of the frame's camera, [3, P]."""
    world = alignment.window_similarity[window]
    if alignment.point_frame == "camera":
        q = torch.zeros(3, raw.shape[0], device=raw.device)
        q[2] = raw[:, 2] * float(world[2, 2])
        return q
    assert alignment.c2w is not None
    c2w = alignment.c2w[frame]
    linear = c2w[:3, :3].mT @ world[:3, :3]
    offset = c2w[:3, :3].mT @ (world[:3, 3] - c2w[:3, 3])
    return torch.addmm(offset[:, None].to(raw), linear.to(raw), raw.T)


def _signs(
    depth: Tensor, distance: Tensor, precision: Float[Tensor, "M P"], seen: Bool[Tensor, " P"]
) -> Float[Tensor, "2 P"]:
    """The first two of ``confidence.SIGNS``; NaN where no window gives a point."""
    relative = torch.stack([1 / precision.max(0).values, distance]) / depth.clamp(min=1e-6)
    return torch.where(seen, relative.clamp(1e-6, 1e6).log(), torch.nan)


def _confidence(
    depth: Tensor,
    distance: Tensor,
    precision: Float[Tensor, "M P"],
    seen: Bool[Tensor, " P"],
    is_sky: Bool[Tensor, " P"],
    sky_votes: Tensor,
    valid_votes: Tensor,
) -> Tensor:
    """In [0, 1]: falls with the relative spread that the windows report and with their disagreement.

    Sky: votes for it of all votes and one more, so that a single window never makes it certain. Disparity alone: 0.05.
    """
    # Mean precision of the windows that report one; a predictor that reports none is taken at its disagreement.
    reporting = (precision > 0).sum(0)
    reported = torch.where(reporting > 0, reporting / precision.sum(0).clamp(min=1e-9), 0.0)
    relative = torch.sqrt(reported**2 + distance**2) / depth.clamp(min=1e-6)
    confidence = 1 / (1 + (relative / CONFIDENCE_HALF) ** 2)
    confidence = torch.where(seen, confidence, 0.05)
    confidence = torch.where(is_sky, sky_votes / (sky_votes + valid_votes + 1), confidence)
    return torch.where(torch.isnan(depth), 0.0, confidence).clamp(0, 1).nan_to_num(nan=0.0)
