"""Multi-view disparity by plane sweep: a window with known cameras in, disparity and an honest confidence out.

For every reference frame the other frames are warped over planes of constant disparity in the reference camera and
compared by zero-mean normalised correlation; the best half of the views counts, so that occlusion in some of them does
no harm. A semi-global pass carries the answer into surfaces without texture, a parabola refines it between the planes.
All planes are searched in pictures of half the size; a few disparities around the answer are compared at the full size.

Axis names: V frames of the window, R reference frames, N neighbours of a reference, D planes, H W pixels, h w pixels of
the smaller pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.evidence.cost import (
    SweepConfig,
    cost_volume,
    parabola,
    pixel_grid,
    relative_projection,
    relative_projections,
)
from geo4d.evidence.smooth import semi_global
from geo4d.optimise.threads import side_by_side, spared_threads


@dataclass(frozen=True)
class SweptDisparity:
    """What a plane sweep found.

    Attributes:
        disparity: 1 / unit of the cameras.
        confidence: in [0, 1], see ``plane_sweep``.
        spread: standard deviation of the logarithm of the disparity for a static surface whose match was found: the
            error of the match and of the cameras over the parallax of the pixel.
    """

    disparity: Float[Tensor, "R H W"]
    confidence: Float[Tensor, "R H W"]
    spread: Float[Tensor, "R H W"]


def plane_sweep(
    video: Float[Tensor, "V H W C"],
    intrinsics: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    *,
    disparities: Float[Tensor, "*v D"] | tuple[float, float, int],
    neighbours: Int[Tensor, "R N"] | None = None,
    references: Sequence[int] | None = None,
    config: SweepConfig | None = None,
) -> tuple[Float[Tensor, "R H W"], Float[Tensor, "R H W"]]:
    """Disparity and confidence of ``sweep_disparity``, for cameras without error.

    Args, raises: as there.
    Returns:
        disparity, and confidence in [0, 1]: about the probability that the depth is within 25 % of the truth for a
        static surface; 0 where no neighbour has parallax.
    """
    found = sweep_disparity(
        video,
        intrinsics,
        c2w,
        disparities=disparities,
        neighbours=neighbours,
        references=references,
        config=config,
    )
    return found.disparity, found.confidence


def sweep_disparity(
    video: Float[Tensor, "V H W C"],
    intrinsics: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    *,
    disparities: Float[Tensor, "*v D"] | tuple[float, float, int],
    neighbours: Int[Tensor, "R N"] | None = None,
    references: Sequence[int] | None = None,
    camera_error: float = 0.0,
    config: SweepConfig | None = None,
) -> SweptDisparity:
    """Disparity of every reference frame from the parallax to the other frames.

    Args:
        video: grey (C = 1) or colour, in [0, 1].
        intrinsics: pixels of ``video``.
        c2w: camera to world; its unit is the unit of depth.
        disparities: planes [D] or one set per frame of the window [V, D], evenly spaced and increasing, 1 / unit
            of ``c2w``; or (near depth, far depth, number of planes).
        neighbours: which frames to compare with each reference, -1 for none; None chooses them.
        references: frames to solve, in the order of the output; None means all.
        camera_error: what the errors of the cameras make of a match, standard deviation in pixels of ``video``.
        config: see ``SweepConfig``.
    Raises:
        ValueError: planes are not increasing, or sizes do not fit.
    """
    config = config or SweepConfig()
    num_frames, height, width, _ = video.shape
    planes = _plane_table(disparities, num_frames).to(video)
    reference_index = torch.as_tensor(
        list(range(num_frames)) if references is None else list(references), dtype=torch.long
    )
    if config.patch % 2 == 0:
        raise ValueError(f"expected an odd patch, got {config.patch}")
    grey = to_grey(video)
    K, pose = intrinsics.to(video), c2w.double()
    if neighbours is None:
        middle = planes[:, planes.shape[1] // 2]
        neighbours = choose_neighbours(
            K, c2w, (height, width), middle, references=reference_index.tolist(), config=config
        )
    projections = relative_projections(K.double(), pose, reference_index, neighbours)

    shrink = config.shrink if min(height, width) >= config.min_side * config.shrink else 1
    small_grey, small_projections = _shrunk(grey, projections, shrink)
    plane_bytes = 4 * planes.shape[1] * small_grey.shape[1] * small_grey.shape[2]
    # Every thread gets some, and together they hold no more than one alone.
    threads = spared_threads()
    chunk = max(1, int(config.max_volume_bytes // (6 * plane_bytes * threads)))
    chunk = min(chunk, max(1, math.ceil(len(reference_index) / threads)))
    disparity = video.new_empty(len(reference_index), height, width)
    margin = torch.empty_like(disparity)

    def sweep(start: int) -> None:
        part = slice(start, start + chunk)
        frames = reference_index[part]
        cost, hidden = cost_volume(
            small_grey, frames, neighbours[part], small_projections[part], planes[frames], config
        )
        smooth = semi_global(cost, small_grey[frames], config)
        found, clear, raw = _pick(smooth, cost, planes[frames], hidden, config.hidden_cost)
        if shrink > 1:
            found, clear = _enlarged(torch.stack([found, clear], 1), small_grey[frames], grey[frames], shrink)
            found, raw = _refine(
                grey, frames, neighbours[part], projections[part], found, planes[frames], config
            )
        disparity[part] = found
        # Both must hold: the views agree at this plane, and no distant plane does as well.
        margin[part] = clear * (raw / 0.6).clamp(0.2, 1)

    side_by_side(sweep, range(0, len(reference_index), chunk))
    parallax = _pixels_per_disparity(projections, neighbours, disparity)
    agreement = _consistency(disparity, reference_index, K, pose, config)
    spread = math.hypot(config.pixel_error, camera_error) / (disparity * parallax).clamp_min(1e-6)
    # The share of matches whose error stays within 25 % of the depth, for a Gaussian pixel error.
    reach = 0.2 / (math.sqrt(2) * spread)
    return SweptDisparity(disparity, (margin * agreement * torch.erf(reach)).clamp(0, 1), spread)


def to_grey(video: Float[Tensor, "*b C"]) -> Float[Tensor, "*b"]:
    """Luma of colour pictures; the only channel of grey ones."""
    if video.shape[-1] == 1:
        return video[..., 0]
    if video.shape[-1] != 3:
        raise ValueError(f"expected 1 or 3 channels last, got shape {tuple(video.shape)}")
    return video @ video.new_tensor([0.299, 0.587, 0.114])


def choose_neighbours(
    intrinsics: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    size: tuple[int, int],
    middle_disparity: Float[Tensor, " V"],
    *,
    references: Sequence[int] | None = None,
    config: SweepConfig | None = None,
) -> Int[Tensor, "R N"]:
    """For every reference the frames that see the same surface with enough, but not too much, parallax.

    Half of the neighbours are taken before and half after the reference where both exist, so that what one side
    occludes the other sees.

    Args:
        intrinsics, c2w, size: the cameras; size is (height, width).
        middle_disparity: of each frame, 1 / unit of ``c2w``.
        references: frames to answer for; None means all.
        config: ``num_neighbours``, ``target_parallax`` and ``min_overlap`` are used.
    Returns:
        indices; -1 where the window has too few frames.
    """
    config = config or SweepConfig()
    height, width = size
    num_frames = len(c2w)
    chosen = list(range(num_frames)) if references is None else list(references)
    count = config.num_neighbours
    ys = (torch.arange(6, dtype=torch.float64) + 0.5) * height / 6
    xs = (torch.arange(8, dtype=torch.float64) + 0.5) * width / 8
    grid = torch.stack([*torch.meshgrid(xs, ys, indexing="xy"), torch.ones(6, 8, dtype=torch.float64)], -1)
    grid = grid.reshape(-1, 3)
    K, pose = intrinsics.double(), c2w.double()
    everyone = torch.arange(num_frames)
    result = torch.full((len(chosen), count), -1, dtype=torch.long)
    for row, r in enumerate(chosen):
        A, b = relative_projection(K, pose, r, everyone)
        far = grid @ A.mT
        near = far + middle_disparity[r].double() * b[:, None, :]
        inside = (near[..., 2] > 1e-6) & (far[..., 2] > 1e-6)
        p_far = far[..., :2] / far[..., 2:].clamp_min(1e-6)
        p_near = near[..., :2] / near[..., 2:].clamp_min(1e-6)
        inside &= (p_near >= 0).all(-1) & (p_near[..., 0] <= width) & (p_near[..., 1] <= height)
        overlap = inside.double().mean(1)
        shift = (p_near - p_far).norm(dim=-1) * inside
        parallax = shift.sum(1) / inside.sum(1).clamp_min(1) / (config.target_parallax * width)
        score = (
            torch.minimum(parallax, 1 / parallax.clamp_min(1e-9))
            * (overlap / config.min_overlap).clamp(0, 1) ** 2
        )
        score = score + 1e-6 / (1 + (everyone - r).abs())  # no parallax at all: the nearest in time
        score[r] = -1
        order = [i for i in score.argsort(descending=True).tolist() if i != r]
        sides = ([i for i in order if i < r], [i for i in order if i > r])
        half = count // 2
        picked = sides[0][: max(half, count - len(sides[1]))]
        picked += sides[1][: count - len(picked)]
        result[row, : len(picked)] = torch.tensor(picked, dtype=torch.long)
    return result


def _plane_table(
    disparities: Float[Tensor, "*v D"] | tuple[float, float, int], num_frames: int
) -> Float[Tensor, "V D"]:
    if isinstance(disparities, tuple):
        near, far, count = disparities
        if not 0 < near < far:
            raise ValueError(f"expected 0 < near < far, got near {near} and far {far}")
        disparities = torch.linspace(1 / far, 1 / near, int(count))
    if disparities.ndim == 1:
        disparities = disparities.expand(num_frames, -1)
    if disparities.shape[0] != num_frames or disparities.shape[1] < 3:
        raise ValueError(
            f"expected planes [D] or [{num_frames}, D] with D >= 3, got {tuple(disparities.shape)}"
        )
    if not bool((disparities.diff(dim=1) > 0).all()):
        raise ValueError("expected increasing disparities")
    return disparities


def _pick(
    smooth: Float[Tensor, "R D H W"],
    cost: Float[Tensor, "R D H W"],
    planes: Float[Tensor, "R D"],
    hidden: Bool[Tensor, "R H W"],
    hidden_cost: float,
) -> tuple[Float[Tensor, "R H W"], Float[Tensor, "R H W"], Float[Tensor, "R H W"]]:
    """The cheapest plane, refined by a parabola; how clearly it beats every plane not beside it; its correlation."""
    num_planes = smooth.shape[1]
    index, position = parabola(smooth)
    low = smooth.gather(1, index)
    step = (planes[:, -1] - planes[:, 0]) / (num_planes - 1)
    disparity = planes[:, 0, None, None] + position * step[:, None, None]

    near = max(2, num_planes // 16)
    rival_cost = smooth.clone()
    for k in range(-near, near + 1):
        rival_cost.scatter_(1, (index + k).clamp(0, num_planes - 1), torch.inf)
    rival = rival_cost.amin(1)
    # At the borders of the picture the true plane may be out of everyone's sight, and any other correlates a little.
    rival = torch.where(hidden, rival.clamp_max(hidden_cost), rival)
    raw = 1 - cost.gather(1, index)[:, 0]
    margin = (rival - low[:, 0]).clamp(0, 1)
    return disparity, 1 - torch.exp(-margin / 0.1), raw


def _shrunk(
    grey: Float[Tensor, "V H W"], projections: Float[Tensor, "R N 3 4"], factor: int
) -> tuple[Float[Tensor, "V h w"], Float[Tensor, "R N 3 4"]]:
    """Means over squares of pixels, repeated at the border where they do not fit, and the projections for them."""
    if factor == 1:
        return grey, projections
    height, width = grey.shape[1:]
    padded = F.pad(grey[:, None], (0, -width % factor, 0, -height % factor), mode="replicate")
    scale = torch.diag(projections.new_tensor([factor, factor, 1.0]))
    smaller = projections.clone()
    smaller[..., :3] = smaller[..., :3] @ scale
    return F.avg_pool2d(padded, factor)[:, 0], torch.linalg.inv(scale) @ smaller


def _enlarged(
    maps: Float[Tensor, "R K h w"], small: Float[Tensor, "R h w"], grey: Float[Tensor, "R H W"], factor: int
) -> tuple[Float[Tensor, "R H W"], ...]:
    """Maps at the full size: every pixel takes the values of the one of the four nearest small pixels most like it."""
    height, width = grey.shape[1:]
    stacked = torch.cat([small[:, None], maps], 1)
    best = chosen = None
    for rows, columns in _four_nearest(
        (height, width), (small.shape[1], small.shape[2]), factor, grey.device
    ):
        candidate = stacked[:, :, rows[:, None], columns]
        distance = (candidate[:, 0] - grey).abs()
        if best is None or chosen is None:
            best, chosen = distance, candidate[:, 1:].clone()
        else:
            closer = distance < best
            best = torch.where(closer, distance, best)
            chosen = torch.where(closer[:, None], candidate[:, 1:], chosen)
    assert chosen is not None
    return chosen.unbind(1)


def _four_nearest(
    size: tuple[int, int], small: tuple[int, int], factor: int, device: torch.device
) -> list[tuple[Int[Tensor, " H"], Int[Tensor, " W"]]]:
    """Rows and columns of the small picture around every pixel, the nearest first."""
    sides = []
    for length, small_length in zip(size, small, strict=True):
        at = (torch.arange(length, device=device) + 0.5) / factor - 0.5
        nearest = at.round().long()
        other = nearest + torch.where(at >= nearest, 1, -1)
        sides.append((nearest.clamp(0, small_length - 1), other.clamp(0, small_length - 1)))
    return [(rows, columns) for rows in sides[0] for columns in sides[1]]


def _refine(
    grey: Float[Tensor, "V H W"],
    references: Int[Tensor, " R"],
    neighbours: Int[Tensor, "R N"],
    projections: Float[Tensor, "R N 3 4"],
    disparity: Float[Tensor, "R H W"],
    planes: Float[Tensor, "R D"],
    config: SweepConfig,
) -> tuple[Float[Tensor, "R H W"], Float[Tensor, "R H W"]]:
    """The best of a few disparities around each pixel's own, refined by a parabola, and its correlation."""
    offsets = torch.arange(-config.reach, config.reach + 1).to(disparity)
    step = (planes[:, -1] - planes[:, 0]) / (planes.shape[1] - 1)
    candidates = disparity[:, None] + step[:, None, None, None] * offsets[:, None, None]
    candidates = candidates.clamp_min(1e-3 * step[:, None, None, None])
    cost, _ = cost_volume(grey, references, neighbours, projections, candidates, config)
    centre, position = parabola(cost + config.stay * offsets.abs()[:, None, None])
    raw = 1 - cost.gather(1, centre)[:, 0]
    moved = disparity + step[:, None, None] * (position - config.reach)
    return moved.clamp_min(1e-3 * step[:, None, None]), raw


def _pixels_per_disparity(
    projections: Float[Tensor, "R N 3 4"], neighbours: Int[Tensor, "R N"], disparity: Float[Tensor, "R H W"]
) -> Float[Tensor, "R H W"]:
    """How far, in pixels, the match moves per unit of disparity: root mean square over the neighbours."""
    refs, height, width = disparity.shape
    pixels = pixel_grid(height, width, disparity)
    total = torch.zeros_like(disparity)
    for row in range(refs):
        used = [n for n in range(neighbours.shape[1]) if neighbours[row, n] >= 0]
        for n in used:
            A, b = projections[row, n, :, :3].to(disparity), projections[row, n, :, 3].to(disparity)
            base = A @ pixels
            depth = (base[2] + disparity[row].reshape(-1) * b[2]).clamp_min(1e-6)
            # d/dd of (base + d b)_xy / (base + d b)_z
            moved = (b[:2, None] * base[2] - base[:2] * b[2]) / depth**2
            total[row] += moved.square().sum(0).reshape(height, width) / len(used)
    return total.sqrt()


def _consistency(
    disparity: Float[Tensor, "R H W"],
    references: Int[Tensor, " R"],
    K: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    config: SweepConfig,
) -> Float[Tensor, "R H W"]:
    """Share of up to four other solved frames whose own disparity agrees where this one lands, or hides it.

    1 with fewer than two solved frames: there is nothing to compare with.
    """
    refs, height, width = disparity.shape
    if refs < 2:
        return torch.ones_like(disparity)
    pixels = pixel_grid(height, width, disparity)
    result = torch.empty_like(disparity)
    frames = references.tolist()
    offsets = [o for o in (-3, -1, 1, 3) if abs(o) < refs]
    for row in range(refs):
        others = [row + o for o in offsets if 0 <= row + o < refs] or [row - 1 if row else row + 1]
        agree, count = torch.zeros(height * width).to(disparity), torch.zeros(height * width).to(disparity)
        d = disparity[row].reshape(-1)
        A, b = relative_projection(K.double(), c2w, frames[row], torch.tensor([frames[o] for o in others]))
        for k, other in enumerate(others):
            point = A[k].to(d) @ pixels + b[k].to(d)[:, None] * d
            z = point[2].clamp_min(1e-6)
            x, y = point[0] / z, point[1] / z
            inside = (x > 0) & (x < width) & (y > 0) & (y < height) & (point[2] > 1e-6)
            column = x.clamp(0, width - 1).long()
            line = y.clamp(0, height - 1).long()
            there = disparity[other, line, column]
            # point[2] is depth in the other camera over depth here, so this is the disparity expected there.
            expected = d / z
            ratio = torch.maximum(there / expected.clamp_min(1e-9), expected / there.clamp_min(1e-9))
            agree += inside * torch.exp(-((ratio - 1) / 0.1))
            count += inside
        result[row] = ((agree + 0.5) / (count + 1)).reshape(height, width)
    return result.clamp(0, 1)
