"""Plan to a network's size, and its exact inverse for maps and intrinsics.

Pictures are stretched to the planned size, never cropped, so every source pixel has a result and intrinsics change
by two factors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

GEO4D_SIZES = ((384, 512), (320, 512), (256, 576), (192, 640))
"""(height, width) that Geo4D was trained at; all landscape."""


@dataclass(frozen=True)
class ResizePlan:
    """Source size to model size and back.

    Attributes:
        source: (height, width) of the source.
        model: (height, width) of the network.
    """

    source: tuple[int, int]
    model: tuple[int, int]

    @property
    def stretch(self) -> float:
        """How much the aspect ratio changes: 1 keeps it, 1.1 widens by a tenth."""
        return (self.model[1] / self.model[0]) / (self.source[1] / self.source[0])


def plan_size(
    source: tuple[int, int],
    *,
    trained: Sequence[tuple[int, int]] = GEO4D_SIZES,
    multiple: int = 64,
    max_area: int | None = None,
) -> ResizePlan:
    """The size at which a network sees a video.

    Among all sizes whose sides are multiples of ``multiple`` and whose area lies in the trained range, the one that
    stretches least; ties and near ties go to what is close to a trained size. Portrait uses the same sizes turned.

    Args:
        source: (height, width) of the video.
        trained: (height, width) seen in training.
        multiple: of both sides.
        max_area: upper limit in pixels for machines with little memory; None takes the largest trained area.
    Raises:
        ValueError: no size fits below ``max_area``.
    """
    height, width = source
    if height < 1 or width < 1:
        raise ValueError(f"expected a positive size, got {height} x {width}")
    known = [*trained, *((w, h) for h, w in trained)]
    areas = [h * w for h, w in trained]
    upper = max(areas) if max_area is None else max_area
    lower = min(areas) if upper >= max(areas) else min(min(areas), upper // 2)
    candidates = [
        (h, w)
        for h in range(multiple, upper // multiple + 1, multiple)
        for w in range(multiple, upper // h + 1, multiple)
        if lower <= h * w <= upper and max(h, w) <= 4 * min(h, w)
    ]
    if not candidates:
        raise ValueError(f"expected an area of at least {2 * multiple**2} pixels, got at most {upper}")

    def cost(size: tuple[int, int]) -> float:
        stretch = abs(math.log(size[1] / size[0]) - math.log(width / height))
        foreign = min(abs(math.log(size[0] / h)) + abs(math.log(size[1] / w)) for h, w in known)
        return stretch + 0.15 * foreign

    return ResizePlan(source, min(candidates, key=cost))


def resize_video(rgb: Float[Tensor, "T H W C"], size: tuple[int, int]) -> Float[Tensor, "T h w C"]:
    """Pictures in [0, 1] at another size: bicubic, without aliasing when they shrink."""
    if tuple(rgb.shape[1:3]) == tuple(size):
        return rgb
    resized = F.interpolate(rgb.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).clamp(0.0, 1.0)
