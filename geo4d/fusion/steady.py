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
from geo4d.geometry.cameras import camera_rays
from geo4d.geometry.poses import relative
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
    held: dict[int, _Held] = {}
    source = iter(maps)
    last = alignment.num_frames - 1
    for frame in range(alignment.num_frames):
        while not held or max(held) < min(last, frame + config.reach):
            new = next(source)
            held[new.frame_index] = _hold(new, new.dynamic if moving is None else moving(new.frame_index))
        for old in [number for number in held if number < frame - config.reach]:
            del held[old]
        others = [
            held[number]
            for number in sorted(held)
            if number != frame and int(alignment.scene[number]) == int(alignment.scene[frame])
        ]
        depth, apart = _averaged(alignment, held[frame], others, config)
        yield _with_confidence(replace(held[frame].maps, depth=depth), apart)


@dataclass(frozen=True)
class _Held:
    """A frame, and what its neighbours sample.

    Attributes:
        layers: logarithm of the depth (0 where it is not known), whether it is known, weight by what moves.
    """

    maps: FrameMaps
    layers: Float[Tensor, "3 H W"]

    @property
    def still(self) -> Float[Tensor, "H W"]:
        return self.layers[2]


def _hold(maps: FrameMaps, probability: Tensor | None) -> _Held:
    known = torch.isfinite(maps.depth)
    log = torch.where(known, maps.depth, 1.0).log()
    still = torch.ones_like(maps.depth) if probability is None else _still(probability.to(maps.depth))
    return _Held(maps, torch.stack([log, known.to(log), still]))


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
    alignment: Alignment, held: _Held, others: Sequence[_Held], config: SteadyConfig
) -> tuple[Tensor, Tensor]:
    """Depth, and the root mean square difference in log depth from the neighbours; NaN where none sees the pixel."""
    maps = held.maps
    unknown = torch.full_like(maps.depth, torch.nan)
    if alignment.c2w is None or not others:
        return maps.depth, unknown
    height, width = maps.depth.shape
    known = torch.isfinite(maps.depth)
    rays = camera_rays(alignment.intrinsics[maps.frame_index].to(maps.depth), (height, width))
    # [3, pixels]: each coordinate lies in one piece. Unknown pixels take part as any other, with no weight.
    points = (rays.reshape(-1, 3).T * torch.where(known, maps.depth, 1.0).reshape(-1)).contiguous()
    own_weight = held.still * known
    moved, mass = torch.zeros_like(maps.depth), torch.ones_like(maps.depth)
    squares, seen = torch.zeros_like(maps.depth), torch.zeros_like(maps.depth)
    numbers = [other.maps.frame_index for other in others]
    for other, (turn, step) in zip(others, _lookups(alignment, maps, numbers), strict=True):
        there = torch.addmm(step[:, None], turn, points).reshape(3, height, width)
        z = there[2].clamp_(min=1e-6)  # behind the camera: far outside of the picture
        place = there[:2].div_(z).permute(1, 2, 0)
        log, found, counts = grid_sample(other.layers[None], place[None], align_corners=False)[0]
        counts.mul_(found.gt_(0.99)).mul_(own_weight)
        difference = log.sub_(z.log_())
        weight = difference.square().mul_(-0.5 / config.width**2).exp_().mul_(counts)
        mass += weight
        moved += weight.mul_(difference)
        squares += difference.abs_().clamp_(max=config.most).square_().mul_(counts)
        seen += counts
    depth = torch.where(known, maps.depth * (moved / mass).exp(), maps.depth)
    disagreement = torch.where(seen > 0.5, (squares / seen.clamp(min=1e-6)).sqrt(), unknown)
    return depth, disagreement


def _lookups(
    alignment: Alignment, maps: FrameMaps, numbers: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """For every other frame: turn [3, 3] and step [3] that take points of the frame's camera to places there.

    A place is (x z, y z, z) with x and y in the convention of ``grid_sample``: -1 and 1 at the borders of the picture.
    """
    assert alignment.c2w is not None
    height, width = maps.depth.shape
    cameras, own = alignment.c2w[numbers], alignment.c2w[[maps.frame_index]]
    to_borders = cameras.new_tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    motion = relative(cameras, own.expand_as(cameras))
    seen_by = to_borders @ alignment.intrinsics[numbers].to(cameras) @ motion[:, :3]
    for lookup in seen_by.to(maps.depth):
        yield lookup[:, :3], lookup[:, 3]
