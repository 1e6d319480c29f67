"""Windows brought onto each other by the frames they share."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.fusion.samples import Samples
from geo4d.fusion.start_focal import masked_median
from geo4d.geometry.poses import inverse_similarity, nearest_rotation, similarity

FRAMES_AT_ONCE, WINDOWS_AT_ONCE = 512, 128
"""That are worked on together: what is in memory does not grow with the video."""


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
    """All pairs of windows that share a frame; R rows, one for each shared frame of each pair, not sorted by pair.

    Returns:
        pair number [R], observation of the first window [R], observation of the second window [R], and the windows of
        each pair [E, 2], the lower number first.
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
        samples.touched(2 * rows.numel())
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
