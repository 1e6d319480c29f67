"""Depth that holds still, and how sure it is.

Every frame is averaged with what its neighbours say about the same points of a static world. A pixel's point is moved
into the neighbours by the cameras; where their depth there agrees, the mean of the logarithms replaces the frame's own.
What moves, what is hidden and what disagrees keeps its own depth. How far the neighbours disagree is kept as well: it is
one of the signs that the confidence is made of.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from geo4d.fusion.alignment import Alignment
from geo4d.fusion.confidence import CURVE
from geo4d.fusion.moving import rigid_flow
from geo4d.geometry.cameras import pixel_grid
from geo4d.types import FrameMaps


@dataclass(frozen=True)
class SteadyConfig:
    """Settings of the average over time.

    Attributes:
        reach: frames before and after that take part.
        width: difference of log depth at which a neighbour's weight falls to 0.6.
        most: difference of log depth that counts at most as disagreement: beyond it something is hidden, not wrong.
    """

    reach: int = 10
    width: float = 0.12
    most: float = 0.5


def iter_steady(
    alignment: Alignment,
    maps: Iterable[FrameMaps],
    moving: Callable[[int], Float[Tensor, "H W"] | None] | None = None,
    config: SteadyConfig | None = None,
) -> Iterator[FrameMaps]:
    """The maps with their depth averaged over neighbouring frames, and their confidence from all signs of error.

    Where the alignment's config says no, the maps come back as they are.

    Holds ``2 reach + 1`` frames. A frame's answer depends only on the frames around it.

    Args:
        maps: of all frames, in order.
        moving: frame -> probability that a pixel moves, or None where nobody knows; None takes that of the maps.
    """
    if not alignment.config.steady:
        yield from maps
        return
    config = config or SteadyConfig()
    held: dict[int, FrameMaps] = {}
    chance: dict[int, Tensor] = {}
    source = iter(maps)
    last = alignment.num_frames - 1
    for frame in range(alignment.num_frames):
        while not held or max(held) < min(last, frame + config.reach):
            new = next(source)
            held[new.frame_index] = new
            found = new.dynamic if moving is None else moving(new.frame_index)
            chance[new.frame_index] = torch.zeros_like(new.depth) if found is None else found.to(new.depth)
        for old in [number for number in held if number < frame - config.reach]:
            del held[old], chance[old]
        near = [
            number
            for number in sorted(held)
            if number != frame and int(alignment.scene[number]) == int(alignment.scene[frame])
        ]
        others = [(held[n], _still(chance[n])) for n in near]
        depth, apart = _averaged(alignment, held[frame], _still(chance[frame]), others, config)
        yield _with_confidence(replace(held[frame], depth=depth), apart)


def _still(probability: Tensor) -> Tensor:
    """Weight of a pixel in the average: none from an even chance of moving on."""
    return (1 - 2 * probability).clamp(0, 1)


def _with_confidence(maps: FrameMaps, apart: Tensor) -> FrameMaps:
    """Confidence of pixels that a window gives a point for; that of the others stays."""
    if maps.signs is None:
        return maps
    signs = torch.cat([maps.signs, apart.clamp(min=1e-6).log()[None]])
    told = torch.isfinite(maps.signs).all(0) & torch.isfinite(maps.depth)
    return replace(maps, signs=signs, confidence=torch.where(told, CURVE(signs), maps.confidence))


def _averaged(
    alignment: Alignment,
    maps: FrameMaps,
    still: Tensor,
    others: Sequence[tuple[FrameMaps, Tensor]],
    config: SteadyConfig,
) -> tuple[Tensor, Tensor]:
    """Depth, and the root mean square difference in log depth from the neighbours; NaN where none sees the pixel."""
    unknown = torch.full_like(maps.depth, torch.nan)
    if alignment.c2w is None or not others:
        return maps.depth, unknown
    frame, intrinsics, c2w = (
        maps.frame_index,
        alignment.intrinsics.to(maps.depth),
        alignment.c2w.to(maps.depth),
    )
    height, width = maps.depth.shape
    grid = pixel_grid((height, width), device=maps.depth.device)
    size = grid.new_tensor([width, height])
    moved, mass = torch.zeros_like(maps.depth), torch.ones_like(maps.depth)
    squares, seen = torch.zeros_like(maps.depth), torch.zeros_like(maps.depth)
    for other, other_still in others:
        number = other.frame_index
        flow, z = rigid_flow(maps.depth, intrinsics[frame], c2w[frame], intrinsics[number], c2w[number])
        place = 2 * (flow + grid) / size - 1
        known = torch.isfinite(other.depth)
        layers = torch.stack([torch.where(known, other.depth, 1.0).log() * known, known.float(), other_still])
        sampled = grid_sample(layers[None], place.nan_to_num(nan=-9.0)[None], align_corners=False)[0]
        usable = (sampled[1] > 0.99) & torch.isfinite(z)
        difference = torch.where(usable, sampled[0] - z.log(), 0.0)
        weight = torch.exp(-0.5 * (difference / config.width) ** 2) * still * sampled[2] * usable
        moved += weight * difference
        mass += weight
        counts = usable * still * sampled[2]
        squares += counts * difference.abs().clamp(max=config.most) ** 2
        seen += counts
    depth = torch.where(torch.isfinite(maps.depth), maps.depth * (moved / mass).exp(), maps.depth)
    disagreement = torch.where(seen > 0.5, (squares / seen.clamp(min=1e-6)).sqrt(), unknown)
    return depth, disagreement
