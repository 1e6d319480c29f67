"""Cost volumes of a plane sweep: frames warped over planes of constant disparity and compared patch by patch.

Axis names: V frames of the window, R reference frames, N neighbours of a reference, D planes, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_INVALID = -2.0  # below every correlation: the neighbour does not see the point of this plane


@dataclass(frozen=True)
class SweepConfig:
    """Settings of the plane sweep.

    Attributes:
        num_neighbours: other frames compared with each reference, chosen by parallax and overlap.
        patch: side of the correlation patch, odd, pixels.
        texture_floor: brightness spread (of [0, 1]) below which a patch counts as blank.
        smooth_small: semi-global penalty for a change of one plane, in units of (1 - correlation).
        smooth_large: penalty for a larger jump where the picture is flat.
        edge_scale: brightness step (of [0, 1]) at which the penalty for jumps has dropped to a third.
        target_parallax: shift between infinity and the middle plane that a neighbour should have, as a share of the
            image width; more is not better.
        min_overlap: share of the reference that a neighbour should see.
        pixel_error: spread of matching, pixels, that turns parallax into confidence.
        shrink: side of the squares of pixels that are averaged for the search over all planes; 1 searches, and ends, at
            the full size.
        min_side: pictures are not shrunk below this number of pixels on their shorter side.
        reach: planes on each side of the answer that are compared again at the full size.
        hidden_cost: what a plane that no neighbour sees might cost, when the answer is asked how clearly it wins.
        stay: cost of leaving the answer by one plane, in units of (1 - correlation).
        max_volume_bytes: bound on the cost volumes held at once.
    """

    num_neighbours: int = 6
    patch: int = 5
    texture_floor: float = 0.003
    smooth_small: float = 0.05
    smooth_large: float = 1.2
    edge_scale: float = 0.08
    target_parallax: float = 0.06
    min_overlap: float = 0.6
    pixel_error: float = 0.5
    shrink: int = 2
    min_side: int = 24
    reach: int = 2
    hidden_cost: float = 0.4
    stay: float = 0.02
    max_volume_bytes: int = 192 << 20


def relative_projection(
    K: Float[Tensor, "V 3 3"], c2w: Float[Tensor, "V 4 4"], reference: int, sources: Int[Tensor, " N"]
) -> tuple[Float[Tensor, "N 3 3"], Float[Tensor, "N 3"]]:
    """A and b with: homogeneous source pixel = A @ reference pixel + disparity * b."""
    w2source = torch.linalg.inv(c2w[sources])
    relative = w2source @ c2w[reference]
    A = K[sources] @ relative[:, :3, :3] @ torch.linalg.inv(K[reference])
    return A, (K[sources] @ relative[:, :3, 3:])[..., 0]


def relative_projections(
    K: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    references: Int[Tensor, " R"],
    neighbours: Int[Tensor, "R N"],
) -> Float[Tensor, "R N 3 4"]:
    """[A | b] of every pair; missing neighbours get those of frame 0 and are masked by the caller."""
    rows = []
    for r, sources in zip(references.tolist(), neighbours, strict=True):
        A, b = relative_projection(K, c2w, r, sources.clamp_min(0))
        rows.append(torch.cat([A, b[..., None]], -1))
    return torch.stack(rows)


def pixel_grid(height: int, width: int, like: Tensor) -> Float[Tensor, "3 HW"]:
    """Homogeneous pixel centres (x + 0.5, y + 0.5, 1), row by row, with the type and device of ``like``."""
    ys = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    xs = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    x, y = torch.meshgrid(xs, ys, indexing="xy")
    return torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)


def cost_volume(
    grey: Float[Tensor, "V H W"],
    references: Int[Tensor, " R"],
    neighbours: Int[Tensor, "R N"],
    projections: Float[Tensor, "R N 3 4"],
    planes: Float[Tensor, "R D"] | Float[Tensor, "R D H W"],
    config: SweepConfig,
) -> tuple[Float[Tensor, "R D H W"], Bool[Tensor, "R H W"]]:
    """1 - correlation, mean of the best half of the views, clamped to [0, 1]; 1 where nobody sees the plane.

    Returns:
        the cost, and where there are planes that nobody sees: that the surface lies there is not excluded.
    """
    _, height, width = grey.shape
    num_planes = planes.shape[1]
    pixels = pixel_grid(height, width, grey)
    # grid_sample wants [-1, 1] from edge to edge, which is our pixel convention.
    to_unit = projections.new_tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    projections = (to_unit @ projections).to(grey)
    planes = planes.flatten(2) if planes.ndim == 4 else planes[..., None]
    cost = grey.new_empty(len(references), num_planes, height, width)
    hidden = torch.zeros(len(references), height, width, dtype=torch.bool, device=grey.device)
    # Small blocks of planes stay in the cache from warping to correlation.
    block = max(1, min(num_planes, (1 << 19) // (4 * height * width)))
    for row, r in enumerate(references.tolist()):
        picture = grey[r]
        mean, spread = _patch_statistics(picture, config)
        used = [n for n in range(neighbours.shape[1]) if neighbours[row, n] >= 0]
        keep = max(1, (len(used) + 1) // 2)
        if not used:
            cost[row], hidden[row] = 1, True
            continue
        base = {n: projections[row, n, :, :3] @ pixels for n in used}
        for start in range(0, num_planes, block):
            d = planes[row, start : start + block]
            best = [grey.new_full((len(d), height, width), _INVALID) for _ in range(keep)]
            for n in used:
                score = _correlate(
                    grey[neighbours[row, n]], base[n], projections[row, n, :, 3], d, picture, mean, spread,
                    config,
                )  # fmt: skip
                for k in range(keep):
                    if k + 1 < keep:
                        lower = torch.minimum(best[k], score)
                    best[k] = torch.maximum(best[k], score)
                    if k + 1 < keep:
                        score = lower
            total, seen = best[0].clamp_min(0), torch.ones_like(best[0])
            if keep > 1:
                present = [(b > _INVALID).to(grey) for b in best]
                seen = torch.stack(present).sum(0).clamp_min(1)
                total = torch.stack([b.clamp_min(0) for b in best]).sum(0)
            cost[row, start : start + block] = 1 - total / seen
            hidden[row] |= (best[0] <= _INVALID).any(0)
    return cost, hidden


def _box(maps: Float[Tensor, "*b H W"], patch: int) -> Float[Tensor, "*b H W"]:
    """Mean over the patch; at the border over the part inside."""
    # Shifted adds run at memory speed; avg_pool2d took two thirds of the whole sweep.
    half = patch // 2
    rows = maps.clone()
    for k in range(1, half + 1):
        rows[..., k:, :] += maps[..., :-k, :]
        rows[..., :-k, :] += maps[..., k:, :]
    columns = rows.clone()
    for k in range(1, half + 1):
        columns[..., k:] += rows[..., :-k]
        columns[..., :-k] += rows[..., k:]
    height, width = maps.shape[-2:]
    return columns.mul_(_inverse_count(height, width, half, maps.dtype, maps.device))


@lru_cache(maxsize=8)
def _inverse_count(
    height: int, width: int, half: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "height width"]:
    """1 / number of pixels within ``half`` of each pixel, along both axes, that lie inside."""
    rows, columns = (
        (at + half).clamp_max(len(at) - 1) - (at - half).clamp_min(0) + 1
        for at in (torch.arange(length, device=device) for length in (height, width))
    )
    return rows.to(dtype).reciprocal()[:, None] * columns.to(dtype).reciprocal()


def _patch_statistics(
    picture: Float[Tensor, "*b H W"], config: SweepConfig
) -> tuple[Float[Tensor, "*b H W"], Float[Tensor, "*b H W"]]:
    """Mean and standard deviation of every patch; the floor keeps blank patches from correlating."""
    mean = _box(picture, config.patch)
    variance = (_box(picture * picture, config.patch) - mean * mean).clamp_min(0)
    return mean, (variance + config.texture_floor**2).sqrt()


def _correlate(
    source: Float[Tensor, "H W"],
    base: Float[Tensor, "3 HW"],
    offset: Float[Tensor, " 3"],
    d: Float[Tensor, "D 1"] | Float[Tensor, "D HW"],
    picture: Float[Tensor, "H W"],
    mean: Float[Tensor, "H W"],
    spread: Float[Tensor, "H W"],
    config: SweepConfig,
) -> Float[Tensor, "D H W"]:
    """Correlation of the reference with one neighbour warped over some planes; ``_INVALID`` where out of sight.

    Homogeneous places in the neighbour, in [-1, 1] from edge to edge, are ``base`` + d * ``offset``.
    """
    height, width = source.shape
    shift = d * offset[:, None, None]
    depth = (base[2] + shift[2]).clamp_min(1e-6)
    inverse = depth.reciprocal_()
    # The numbers of x and of y lie in one piece each: interleaving them would take as long as sampling.
    place = torch.empty(2, len(d), height * width, dtype=source.dtype, device=source.device)
    for k in range(2):
        torch.add(base[k], shift[k], out=place[k]).mul_(inverse)
    grid = place.reshape(2, 1, -1, width).permute(1, 2, 3, 0)
    warped = F.grid_sample(
        source[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
    ).reshape(len(d), height, width)
    x, y = place.abs_()
    outside = torch.maximum(x, y) > 1
    sums = torch.empty(3, len(d), height, width, dtype=source.dtype, device=source.device)
    sums[0] = warped
    torch.mul(warped, warped, out=sums[1])
    torch.mul(warped, picture, out=sums[2])
    warped_mean, square, product = _box(sums, config.patch)
    variance = square.sub_(warped_mean * warped_mean).clamp_min_(0).add_(config.texture_floor**2)
    score = product.sub_(warped_mean.mul_(mean)).mul_(variance.rsqrt_()).div_(spread)
    return score.masked_fill_(outside.reshape(len(d), height, width), _INVALID)


def parabola(
    cost: Float[Tensor, "R D H W"],
) -> tuple[Int[Tensor, "R 1 H W"], Float[Tensor, "R H W"]]:
    """The cheapest plane, and the place of the lowest point of the parabola through it and its two neighbours, planes."""
    index = cost.min(1, keepdim=True).indices
    centre = index.clamp(1, cost.shape[1] - 2)
    left, middle, right = (cost.gather(1, centre + k) for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = torch.where(bend > 1e-6, 0.5 * (left - right) / bend.clamp_min(1e-6), (index - centre).to(cost))
    return index, (centre + shift.clamp(-1, 1))[:, 0]
