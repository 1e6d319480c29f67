"""Starting values: focal lengths, window registration, cameras, alignment of disparity and trajectories.

Every fit is robust (reweighted), because a window of a stochastic predictor may be wrong as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.fusion.samples import Samples, Trajectory
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import (
    inverse,
    inverse_similarity,
    nearest_rotation,
    rigid,
    rotation_angle,
    similarity,
    similarity_parts,
)

_FRAMES_AT_ONCE, _WINDOWS_AT_ONCE = 512, 128
"""That are worked on together: what is in memory does not grow with the video."""


def masked_median(values: Float[Tensor, "*b n"], mask: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Median over the last axis of the entries where ``mask``; NaN where there are none."""
    return torch.where(mask, values, torch.nan).nanmedian(dim=-1).values


@dataclass(frozen=True)
class FocalFit:
    """Focal length of each window's first frame and the z shift that puts its camera at the origin.

    Attributes:
        focal: pixels; NaN where the window has too few points.
        shift: in the unit of the sampled points; 0 where unknown.
        error: median reprojection error, pixels.
    """

    focal: Float[Tensor, " G"]
    shift: Float[Tensor, " G"]
    error: Float[Tensor, " G"]


def fit_focals(
    points: Float[Tensor, "G 3 P"],
    offset: Float[Tensor, "G 2 P"],
    weight: Float[Tensor, "G P"],
    known_shift: Float[Tensor, " G"],
    *,
    limits: tuple[float, float],
    num_iterations: int = 12,
) -> FocalFit:
    """Focal length and z shift from points in their own camera's axes: x = u (z + shift) / focal, reweighted.

    Linear in 1 / focal and shift / focal, with the noisy x as the answer and not among what explains it, so that
    outliers do not pull the focal length down. Where shift and focal cannot be told apart (all points at one depth) the
    fit leans to the middle of ``limits``.

    Args:
        offset: pixels minus principal point.
        known_shift: NaN where the shift is unknown.
        limits: smallest and largest focal length, pixels.
    """
    base = weight.double()
    points = points.double()
    offset = offset.double()
    xy, z = points[:, :2], points[:, 2]
    enough = (base > 0).sum(1) >= 8
    known = torch.isfinite(known_shift)
    typical = (limits[0] * limits[1]) ** 0.5
    near = 0.1 * masked_median(z.abs(), base > 0).nan_to_num(nan=1.0)[:, None] + 1e-3
    row_weight = base
    focal = torch.full_like(base[:, 0], typical)
    shift = torch.zeros_like(focal)
    error = torch.zeros_like(base)
    for _ in range(num_iterations):
        a11 = (row_weight * (offset**2).sum(1) * z * z).sum(1)
        a12 = (row_weight * (offset**2).sum(1) * z).sum(1)
        a22 = (row_weight * (offset**2).sum(1)).sum(1)
        b1 = (row_weight * (xy * offset).sum(1) * z).sum(1)
        b2 = (row_weight * (xy * offset).sum(1)).sum(1)
        # A breath of prior on the focal length decides the flat scene and nothing else.
        ridge = 1e-6 * a11
        determinant = ((a11 + ridge) * a22 - a12 * a12).clamp(min=1e-30)
        slope = ((b1 + ridge / typical) * a22 - a12 * b2) / determinant
        free_focal = (1 / slope.clamp(min=1e-9)).clamp(*limits)
        free_shift = (b2 * free_focal - a12) / a22.clamp(min=1e-30)
        reach = z + known_shift[:, None]
        power = (row_weight * (offset**2).sum(1) * reach * reach).sum(1)
        along = (row_weight * (xy * offset).sum(1) * reach).sum(1)
        fixed_focal = (power / along.clamp(min=1e-30)).clamp(*limits)
        focal = torch.where(known, fixed_focal, free_focal)
        shift = torch.where(known, known_shift, free_shift)
        distance = torch.maximum(z + shift[:, None], near)
        error = (focal[:, None, None] * xy / distance[:, None] - offset).norm(dim=1)
        floor = 0.3 * masked_median(error, base > 0).nan_to_num(nan=1.0)
        row_weight = base / (distance * distance * torch.maximum(error, floor[:, None]).clamp(min=1e-6))
    median = masked_median(error, base > 0)
    return FocalFit(
        torch.where(enough, focal, torch.nan), torch.where(enough, shift, 0.0).nan_to_num(), median
    )


@dataclass(frozen=True)
class Registration:
    """Windows in common worlds.

    Attributes:
        world: [G, 4, 4] similarity of each window; the first window of each component has its own frame as world.
        component: number of the connected component of each window.
        agreement: [G] least median distance to any overlapping window, in units of the window's depth; infinite
            where nothing overlaps.
        first, second, cost: the pairs that were compared.
    """

    world: Float[Tensor, "G 4 4"]
    component: Int[Tensor, " G"]
    agreement: Float[Tensor, " G"]
    first: Int[Tensor, " E"]
    second: Int[Tensor, " E"]
    cost: Float[Tensor, " E"]


def overlapping_pairs(samples: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pairs of windows that share a frame.

    Returns:
        pair number, observation of the first window, observation of the second window (one row per shared frame of
        each pair), and the pairs [E, 2] themselves.
    """
    table = samples.table
    slots = table.shape[1]
    rows = []
    for a in range(slots):
        for b in range(a + 1, slots):
            both = (table[:, a] >= 0) & (table[:, b] >= 0)
            rows.append(torch.stack([table[both, a], table[both, b]], 1))
    shared = torch.cat(rows) if rows else torch.zeros(0, 2, dtype=torch.long, device=table.device)
    windows = samples.window[shared]
    key = windows[:, 0] * samples.num_windows + windows[:, 1]
    unique, pair = torch.unique(key, return_inverse=True)
    pairs = torch.stack([unique // samples.num_windows, unique % samples.num_windows], 1)
    return pair, shared[:, 0], shared[:, 1], pairs


def robust_similarity(
    source: Float[Tensor, "E n 3"],
    target: Float[Tensor, "E n 3"],
    weight: Float[Tensor, "E n"],
    *,
    num_iterations: int = 8,
) -> tuple[Float[Tensor, "E 4 4"], Float[Tensor, " E"]]:
    """Reweighted similarity of each pair and its median distance; the floor of the weights is 0.3 of that median."""
    row_weight = weight
    usable = weight > 0
    world = torch.eye(4, dtype=source.dtype, device=source.device).expand(len(source), 4, 4)
    median = torch.zeros_like(weight[:, 0])
    for _ in range(num_iterations):
        share = (row_weight / row_weight.sum(1, keepdim=True).clamp(min=1e-30))[..., None]
        source_mean, target_mean = (
            (share * source).sum(1, keepdim=True),
            (share * target).sum(1, keepdim=True),
        )
        source_c, target_c = source - source_mean, target - target_mean
        covariance = (share * target_c).mT @ source_c
        rotation = nearest_rotation(covariance)
        spread = (share * source_c * source_c).sum((1, 2))
        scale = (rotation * covariance).sum((1, 2)) / spread.clamp(min=1e-30)
        scale = torch.where((spread > 1e-20) & (scale > 1e-3), scale, torch.ones_like(scale))
        translation = target_mean[:, 0] - scale[:, None] * (rotation @ source_mean.mT)[..., 0]
        world = similarity(scale, rotation, translation)
        distance = (scale[:, None, None] * source @ rotation.mT + translation[:, None] - target).norm(dim=2)
        median = masked_median(distance, usable)
        floor = (0.3 * median).nan_to_num(nan=1.0).clamp(min=1e-9)
        row_weight = weight / torch.maximum(distance, floor[:, None])
    return world, median


def register_windows(
    samples: Samples, *, num_points: int = 1200, min_points: int = 24, chunk: int = 256
) -> Registration:
    """Robust similarity for every overlapping pair, then a minimum spanning tree over the median distances.

    A bad window agrees with none, so it becomes a leaf of the tree instead of a link in a chain.
    """
    num_windows = samples.num_windows
    pair, row_a, row_b, pairs = overlapping_pairs(samples)
    order = torch.argsort(pair, stable=True)
    pair, row_a, row_b = pair[order], row_a[order], row_b[order]
    count = torch.bincount(pair, minlength=len(pairs))
    start = torch.cumsum(count, 0) - count
    max_shared = int(count.max()) if len(count) else 0
    costs, worlds, enough = [], [], []
    num_samples = samples.points.shape[2]
    for low in range(0, len(pairs), chunk):
        high = min(len(pairs), low + chunk)
        # At most 6 shared frames per pair, spread over the overlap; at most num_points points.
        frames = min(6, max_shared)
        take = torch.linspace(0, 1, frames, device=pair.device)[None] * (count[low:high, None] - 1)
        rows = start[low:high, None] + take.round().long()
        stride = max(1, frames * num_samples // num_points)
        # Other pixels in every frame; repeated frames of short overlaps only repeat their own samples.
        source = (
            samples.points[row_b[rows]][..., ::stride].permute(0, 1, 3, 2).reshape(high - low, -1, 3).double()
        )
        target = (
            samples.points[row_a[rows]][..., ::stride].permute(0, 1, 3, 2).reshape(high - low, -1, 3).double()
        )
        weight = torch.sqrt(
            samples.weight[row_a[rows]][..., ::stride] * samples.weight[row_b[rows]][..., ::stride]
        ).reshape(high - low, -1)
        world, median = robust_similarity(source, target, weight.double())
        worlds.append(world)
        costs.append(median)
        enough.append((weight > 0).sum(1) >= min_points)
    device = samples.points.device
    cost = torch.cat(costs) if costs else torch.zeros(0, dtype=torch.float64, device=device)
    world = torch.cat(worlds) if worlds else torch.zeros(0, 4, 4, dtype=torch.float64, device=device)
    usable = (
        torch.cat(enough) & cost.isfinite() if enough else torch.zeros(0, dtype=torch.bool, device=device)
    )
    pairs, cost, world = pairs[usable].cpu(), cost[usable].cpu(), world[usable].cpu()
    agreement = torch.full((num_windows,), torch.inf, dtype=torch.float64)
    for side in range(2):
        agreement.scatter_reduce_(0, pairs[:, side], cost, "amin")
    placed, component = _spanning_forest(num_windows, pairs, cost, world)
    return Registration(placed, component, agreement, pairs[:, 0], pairs[:, 1], cost)


def _spanning_forest(
    num_windows: int, pairs: Tensor, cost: Tensor, pair_world: Tensor
) -> tuple[Tensor, Tensor]:
    """Kruskal: join the two groups of windows at each pair, cheapest first. ``pair_world`` maps second to first."""
    world = torch.eye(4, dtype=torch.float64).repeat(num_windows, 1, 1)
    component = torch.arange(num_windows)
    neighbours: list[list[tuple[int, Tensor]]] = [[] for _ in range(num_windows)]
    for index in torch.argsort(cost, stable=True).tolist():
        a, b = pairs[index].tolist()
        if component[a] == component[b]:
            continue
        component[component == component[b]] = component[a].clone()
        neighbours[a].append((b, pair_world[index]))
        neighbours[b].append((a, inverse_similarity(pair_world[index])))
    seen = [False] * num_windows
    for root in range(num_windows):
        if seen[root]:
            continue
        seen[root], stack = True, [root]
        while stack:
            window = stack.pop()
            for other, motion in neighbours[window]:
                if not seen[other]:
                    seen[other] = True
                    world[other] = world[window] @ motion
                    stack.append(other)
    return world, torch.unique(component, return_inverse=True)[1]


def disagreeing_windows(
    registration: Registration, *, ratio: float | None, floor: float, ceiling: float
) -> Bool[Tensor, " G"]:
    """Windows that are wrong as a whole, judged by the pairs that they overlap with.

    A pair disagrees when its median distance exceeds ``ratio`` times what windows reach with their best partner. The
    window with the largest share of such pairs goes first, then its pairs no longer speak against the others: the
    neighbour of a bad window is not bad for that. A window that only bad windows overlap cannot be judged; it passes,
    unless most of the video is like that.

    Args:
        ratio: None leaves only the absolute limit.
        floor: distance below which no pair disagrees, in depth ranges of a window.
        ceiling: distance above which every pair disagrees.
    """
    num_windows = len(registration.agreement)
    bad = torch.zeros(num_windows, dtype=torch.bool)
    finite = registration.agreement.isfinite()
    limit = ceiling
    if ratio is not None and int(finite.sum()) > 2:
        limit = min(ceiling, ratio * max(float(registration.agreement[finite].median()), floor))
    first, second = registration.first, registration.second
    wrong = registration.cost > limit
    judged = torch.ones(num_windows, dtype=torch.bool)
    while True:
        open_pairs = judged[first] & judged[second]
        total = torch.zeros(num_windows, dtype=torch.float64)
        against = torch.zeros(num_windows, dtype=torch.float64)
        for side in (first, second):
            total.index_add_(0, side, open_pairs.double())
            against.index_add_(0, side, (open_pairs & wrong).double())
        share = against / total.clamp(min=1)
        if not bool((share > 0.7).any()):
            break
        # The largest share, then the most pairs, then the worst agreement.
        order = share * 1e6 + against * 1e2 + registration.agreement.nan_to_num(posinf=0.0).clamp(max=10)
        worst = int(order.argmax())
        bad[worst], judged[worst] = True, False
    agrees = torch.zeros(num_windows, dtype=torch.bool)
    for side in (first, second):
        agrees[side[~wrong]] = True
    unconfirmed = finite & ~agrees & ~bad
    if 2 * int((bad | unconfirmed).sum()) > max(2, num_windows):
        bad |= unconfirmed
    return bad


def window_poses(
    samples: Samples,
    rays: Float[Tensor, "N 3 P"],
    shift: Float[Tensor, " G"],
    trajectories: tuple[Trajectory, ...],
    *,
    num_points: int = 160,
    num_iterations: int = 6,
) -> Float[Tensor, "O 4 4"]:
    """Camera of every observation in its window's own frame, from points and rays.

    Frame after frame inside the window (all windows at once): the start is the frame before, or the ray-map rotation
    with the centre that the points ask for, whichever fits better.
    """
    device = samples.points.device
    stride = max(1, samples.points.shape[2] // num_points)
    count = len(samples.frame)
    poses = torch.eye(4, dtype=torch.float64, device=device).repeat(count, 1, 1)
    poses[:, 2, 3] = -shift.to(device)[samples.window]
    hint = torch.full((count, 3, 3), torch.nan, dtype=torch.float64, device=device)
    observation = {
        (int(w), int(f)): o
        for o, (w, f) in enumerate(zip(samples.window.tolist(), samples.frame.tolist(), strict=True))
    }
    for trajectory in trajectories:
        if trajectory.window < 0:
            continue
        known_rows = [observation[trajectory.window, int(frame)] for frame in trajectory.frames]
        hint[known_rows] = trajectory.c2w[:, :3, :3].to(device)
    longest = int(samples.local.max()) + 1
    by_local = [torch.nonzero(samples.local == k)[:, 0] for k in range(longest)]
    previous = torch.full((samples.num_windows,), -1, device=device)
    for rows in by_local:
        points = samples.points[rows][..., ::stride].mT.double()
        weight = samples.weight[rows][..., ::stride].double()
        sight = rays[samples.frame[rows]][..., ::stride].mT.double()
        before = previous[samples.window[rows]]
        start = torch.where((before >= 0)[:, None, None], poses[before.clamp(min=0)], poses[rows])
        candidates = [start]
        known = torch.isfinite(hint[rows]).all(-1).all(-1)
        if bool(known.any()):
            turned = torch.where(known[:, None, None], hint[rows], start[:, :3, :3])
            centre = _centre_from_rays(points, sight @ turned.mT, weight)
            centre = torch.where(known[:, None], centre, start[:, :3, 3])
            candidates.append(rigid(turned, centre))
        costs = torch.stack([_sight_error(points, sight, weight, c) for c in candidates])
        best = torch.stack(candidates)[costs.argmin(0), torch.arange(len(rows), device=device)]
        refined = fit_camera_pose(
            points, sight, weight, initial_w2c=inverse(best), num_iterations=num_iterations
        )
        poses[rows] = inverse(refined)
        previous[samples.window[rows]] = rows
    return poses


def _centre_from_rays(points: Tensor, directions: Tensor, weight: Tensor) -> Tensor:
    """Camera centre nearest (least squares in angle) to the lines through ``points`` along ``directions``."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    identity = torch.eye(3, dtype=points.dtype, device=points.device)
    distance = points.norm(dim=-1).clamp(min=1e-3)
    share = weight / distance**2
    matrix = share.sum(1)[:, None, None] * identity - torch.einsum("bn,bni,bnj->bij", share, unit, unit)
    along = (unit * points).sum(-1, keepdim=True)
    right = (share[..., None] * (points - along * unit)).sum(1)
    ridge = 1e-9 * matrix.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-12)
    return torch.linalg.solve(matrix + ridge[:, None, None] * identity, right[..., None])[..., 0]


def _sight_error(points: Tensor, sight: Tensor, weight: Tensor, c2w: Tensor) -> Tensor:
    """Weighted mean of the capped error in the plane z = 1."""
    camera = (points - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]
    error = (camera[..., :2] / camera[..., 2:].clamp(min=1e-3) - sight[..., :2]).norm(dim=-1)
    error = torch.where(camera[..., 2] > 0, error, 1.0).clamp(max=1.0)
    return (weight * error).sum(1) / weight.sum(1).clamp(min=1e-30)


def choose_cameras(
    samples: Samples,
    rays: Float[Tensor, "N 3 P"],
    world: Float[Tensor, "G 4 4"],
    poses: Float[Tensor, "O 4 4"],
    shift: Float[Tensor, " G"],
    window_weight: Float[Tensor, " G"],
    trajectories: tuple[Trajectory, ...],
    *,
    num_points: int = 160,
) -> Float[Tensor, "N 4 4"]:
    """Camera of each frame: of the hypotheses that its windows offer (points, ray map), the one with the least point
    cost over all of them. Frames that no window sees are filled from their neighbours."""
    device = samples.points.device
    world = world.to(device)
    scale, rotation, _ = similarity_parts(world)
    moved = similarity_camera(world[samples.window], poses)
    hypotheses = [moved]
    hint = moved.clone()
    position = {
        (int(w), int(f)): o
        for o, (w, f) in enumerate(zip(samples.window.tolist(), samples.frame.tolist(), strict=True))
    }
    for trajectory in trajectories:
        if trajectory.window < 0:
            continue
        rows = [position[trajectory.window, int(frame)] for frame in trajectory.frames]
        local = trajectory.c2w.to(device).clone()
        local[:, 2, 3] -= shift[trajectory.window].to(device)
        hint[rows] = similarity_camera(world[trajectory.window].expand(len(rows), 4, 4), local)
    hypotheses.append(hint)
    num_frames = samples.table.shape[0]
    stride = max(1, samples.points.shape[2] // num_points)
    linear = scale[:, None, None] * rotation
    chosen = torch.empty(num_frames, 4, 4, dtype=torch.float64, device=device)
    for first in range(0, num_frames, _FRAMES_AT_ONCE):
        frames = slice(first, min(first + _FRAMES_AT_ONCE, num_frames))
        present = samples.table[frames] >= 0
        table = samples.table[frames].clamp(min=0)
        sight = rays[frames, :, ::stride].double()
        candidates = torch.stack([h[table] for h in hypotheses], 1).flatten(1, 2)
        placed, weight = [], []
        for seen_by in table.unbind(1):
            window = samples.window[seen_by]
            points = samples.points[seen_by][..., ::stride].double()
            placed.append(linear[window] @ points + world[window, :3, 3:])
            weight.append(
                samples.weight[seen_by][..., ::stride].double() * window_weight.to(device)[window][:, None]
            )
        costs = []
        for k in range(candidates.shape[1]):
            camera = candidates[:, k]
            total = torch.zeros(len(table), dtype=torch.float64, device=device)
            for m, seen in enumerate(present.unbind(1)):
                q = camera[:, :3, :3].mT @ (placed[m] - camera[:, :3, 3:])
                depth = ((q * sight).sum(1) / (sight * sight).sum(1)).clamp(min=1e-3)
                distance = (depth[:, None] * sight - q).norm(dim=1)
                total += torch.where(seen, (weight[m] * distance).sum(1), 0.0)
            costs.append(torch.where(present[:, k % table.shape[1]], total, torch.inf))
        best = torch.stack(costs, 1).argmin(1)
        chosen[frames] = candidates[torch.arange(len(table), device=device), best]
    present = samples.table >= 0
    return fill_missing_cameras(chosen, present.any(1))


def similarity_camera(
    world: Float[Tensor, "*b 4 4"], c2w: Float[Tensor, "*b 4 4"]
) -> Float[Tensor, "*b 4 4"]:
    """Cameras moved by similarities of their own."""
    _, rotation, _ = similarity_parts(world)
    centre = (world[..., :3, :3] @ c2w[..., :3, 3:])[..., 0] + world[..., :3, 3]
    return rigid(rotation @ c2w[..., :3, :3], centre)


def fill_missing_cameras(c2w: Float[Tensor, "N 4 4"], known: Bool[Tensor, " N"]) -> Float[Tensor, "N 4 4"]:
    """Frames without a camera take that of the nearest frame with one (the smoothness term then spreads them)."""
    if not bool(known.any()):
        return torch.eye(4, dtype=c2w.dtype, device=c2w.device).expand_as(c2w).clone()
    where = torch.nonzero(known)[:, 0]
    frames = torch.arange(len(c2w), device=c2w.device)
    right = torch.searchsorted(where, frames).clamp(max=len(where) - 1)
    left = (right - 1).clamp(min=0)
    closer = (frames - where[left]).abs() <= (where[right] - frames).abs()
    return c2w[torch.where(closer, where[left], where[right])]


@dataclass(frozen=True)
class DisparityFits:
    """Alignment of every window's disparity with the current depths.

    Attributes:
        scale, shift: see ``Variables``; 1 and 0 for windows without usable samples.
        error: median, in the window's own unit; infinite without usable samples.
        share: of usable samples within a factor of 1.25; 0 without any.
    """

    scale: Float[Tensor, " G"]
    shift: Float[Tensor, " G"]
    error: Float[Tensor, " G"]
    share: Float[Tensor, " G"]

    def cpu(self) -> "DisparityFits":
        return DisparityFits(self.scale.cpu(), self.shift.cpu(), self.error.cpu(), self.share.cpu())


def fit_disparities(
    samples: Samples, depth: Float[Tensor, "N P"], usable: Bool[Tensor, "O P"], *, num_iterations: int = 25
) -> DisparityFits:
    """Scale and shift of every window's disparity by least absolute deviations (reweighted)."""
    rows, inside = _rows_by_window(samples)
    fits = [
        _fit_disparities(samples, depth, usable, rows[first:last], inside[first:last], num_iterations)
        for first in range(0, len(rows), _WINDOWS_AT_ONCE)
        for last in [first + _WINDOWS_AT_ONCE]
    ]
    return DisparityFits(*(torch.cat([getattr(fit, f.name) for fit in fits]) for f in fields(DisparityFits)))


def _fit_disparities(
    samples: Samples,
    depth: Float[Tensor, "N P"],
    usable: Bool[Tensor, "O P"],
    rows: Int[Tensor, "g V"],
    inside: Bool[Tensor, "g V"],
    num_iterations: int,
) -> DisparityFits:
    """The same for some windows, given as the rows of their observations."""
    device, num_windows = samples.points.device, len(rows)
    source = samples.disparity[rows].flatten(1).double()
    target = (1 / depth[samples.frame[rows]]).flatten(1).double()
    base = (usable[rows] & inside[..., None]).flatten(1).double()
    weight = base
    scale = torch.ones(num_windows, dtype=torch.float64, device=device)
    shift = torch.zeros_like(scale)
    middle = masked_median(target.abs(), base > 0).nan_to_num(nan=1.0)
    error = torch.zeros_like(source)
    for number in range(num_iterations):
        total = weight.sum(1, keepdim=True).clamp(min=1e-30)
        source_mean = (weight * source).sum(1, keepdim=True) / total
        target_mean = (weight * target).sum(1, keepdim=True) / total
        centred = source - source_mean
        variance = (weight * centred * centred).sum(1)
        scale = (weight * centred * (target - target_mean)).sum(1) / variance.clamp(min=1e-30)
        shift = target_mean[:, 0] - scale * source_mean[:, 0]
        error = (scale[:, None] * source + shift[:, None] - target).abs()
        floor = 1e-3 * middle if number > 5 else 0.1 * masked_median(error, base > 0).nan_to_num(nan=1.0)
        weight = base / torch.maximum(error, floor.clamp(min=1e-9)[:, None])
    predicted = (scale[:, None] * source + shift[:, None]).clamp(min=1e-5)
    ratio = torch.maximum(predicted / target, target / predicted)
    count = base.sum(1)
    share = (base * (ratio < 1.25)).sum(1) / count.clamp(min=1)
    median = masked_median(error, base > 0) / scale.abs().clamp(min=1e-9)
    enough = count >= 8
    return DisparityFits(
        torch.where(enough, scale, 1.0),
        torch.where(enough, shift, 0.0),
        torch.where(enough & median.isfinite(), median, torch.inf),
        torch.where(enough, share, 0.0),
    )


def _rows_by_window(samples: Samples) -> tuple[Tensor, Tensor]:
    """Observations of each window [G, V], padded, and True where they exist."""
    longest = int(samples.local.max()) + 1
    rows = torch.zeros(samples.num_windows, longest, dtype=torch.long, device=samples.frame.device)
    inside = torch.zeros(samples.num_windows, longest, dtype=torch.bool, device=samples.frame.device)
    rows[samples.window, samples.local] = torch.arange(len(samples.frame), device=samples.frame.device)
    inside[samples.window, samples.local] = True
    return rows, inside


@dataclass(frozen=True)
class TrajectoryFits:
    """Alignment of every trajectory with the current cameras.

    Attributes:
        scale, rotation, translation: see ``Variables``.
        rpe_rad: root mean square angle between the relative rotations of neighbours.
    """

    scale: Float[Tensor, " K"]
    rotation: Float[Tensor, "K 3 3"]
    translation: Float[Tensor, "K 3"]
    rpe_rad: Float[Tensor, " K"]


def fit_trajectories(
    trajectories: Sequence[Trajectory],
    rotation: Float[Tensor, "N 3 3"],
    centre: Float[Tensor, "N 3"],
    default_scale: Float[Tensor, " K"],
    *,
    num_iterations: int = 10,
) -> TrajectoryFits:
    """Rotation by a reweighted chordal mean, then scale and translation by reweighted least squares.

    Args:
        default_scale: taken where the cameras hardly move, so that the centres say nothing.
    """
    count = len(trajectories)
    result = TrajectoryFits(
        default_scale.clone(),
        torch.eye(3, dtype=torch.float64).repeat(count, 1, 1),
        torch.zeros(count, 3, dtype=torch.float64),
        torch.zeros(count, dtype=torch.float64),
    )
    by_length: dict[int, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        by_length.setdefault(len(trajectory.frames), []).append(index)
    for rows in by_length.values():
        frames = torch.stack([trajectories[k].frames for k in rows])
        c2w = torch.stack([trajectories[k].c2w for k in rows])
        base = torch.stack([trajectories[k].weight for k in rows])
        fitted = _fit_equal_lengths(
            c2w, base, rotation[frames], centre[frames], default_scale[rows], num_iterations
        )
        result.scale[rows], result.rotation[rows], result.translation[rows], result.rpe_rad[rows] = fitted
    return result


def _fit_equal_lengths(
    c2w: Float[Tensor, "k V 4 4"],
    base: Float[Tensor, "k V"],
    camera: Float[Tensor, "k V 3 3"],
    target: Float[Tensor, "k V 3"],
    default_scale: Float[Tensor, " k"],
    num_iterations: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    local, origin = c2w[..., :3, :3], c2w[..., :3, 3]
    turns = camera @ local.mT
    weight, mean = base, nearest_rotation(turns.mean(1))
    for _ in range(num_iterations):
        mean = nearest_rotation((weight[..., None, None] * turns).sum(1) + 1e-12 * mean)
        weight = base / (turns - mean[:, None]).flatten(2).norm(dim=2).clamp(min=1e-3)
    turned = origin @ mean.mT
    weight, scale = base, default_scale
    translation = target[:, 0] - scale[:, None] * turned[:, 0]
    for _ in range(num_iterations):
        share = (weight / weight.sum(1, keepdim=True).clamp(min=1e-30))[..., None]
        target_mean, turned_mean = (share * target).sum(1), (share * turned).sum(1)
        centred = turned - turned_mean[:, None]
        power = (share * centred**2).sum((1, 2))
        scale = (share * centred * (target - target_mean[:, None])).sum((1, 2)) / power.clamp(min=1e-15)
        sensible = (scale > 0.05 * default_scale) & (scale < 20 * default_scale)
        scale = torch.where(sensible, scale, default_scale)
        translation = target_mean - scale[:, None] * turned_mean
        distance = (scale[:, None, None] * turned + translation[:, None] - target).norm(dim=2)
        weight = base / distance.clamp(min=1e-4)
    rpe = torch.zeros_like(scale)
    if camera.shape[1] > 1:
        step, own = camera[:, :-1].mT @ camera[:, 1:], local[:, :-1].mT @ local[:, 1:]
        rpe = (rotation_angle(own.mT @ step) ** 2).mean(1).sqrt()
    return scale, mean, translation, rpe


def focal_from_ray_map(directions: Float[Tensor, "h w 3"], offset: Float[Tensor, "h w 2"]) -> float:
    """Median focal length in pixels that ray directions in camera axes imply; NaN where they point nowhere forward."""
    usable = directions[..., 2] > 1e-3
    slope = directions[..., :2] / directions[..., 2:].clamp(min=1e-3)
    far = offset.abs() > 0.25 * offset.abs().amax((0, 1))
    ratio = offset / torch.where(slope.abs() > 1e-4, slope, torch.nan)
    return float(torch.where(usable[..., None] & far, ratio, torch.nan).nanmedian())
