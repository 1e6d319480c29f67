"""What a depth network must be to run here, and the memory that spares it pictures it has seen."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.types import ScaleKind


@dataclass(frozen=True)
class FrameDepths:
    """What a network says about pictures, each by itself.

    Attributes:
        disparity: 1 / z-depth at the size of the pictures, of the network's ``scale_kind``; finite, on the CPU.
        intrinsics: pixels of the pictures, where the network knows them, else None.
        sky: True where the network sees no surface, or None where it cannot tell.
    """

    disparity: Float[Tensor, "N H W"]
    intrinsics: Float[Tensor, "N 3 3"] | None = None
    sky: Bool[Tensor, "N H W"] | None = None


@runtime_checkable
class DepthNetwork(Protocol):
    """Sees pictures one by one; a function of the picture alone.

    ``scale_kind`` is that of the disparity: ``affine`` (scale and shift differ from picture to picture), ``scale``
    (true disparity times a factor) or ``metric`` (1 / metre). A network that gives depth returns 1 / depth.
    """

    scale_kind: ScaleKind

    def __call__(self, rgb: Float[Tensor, "N H W 3"]) -> FrameDepths:
        """Depths of pictures in [0, 1]."""
        ...


class Remembered:
    """A network that looks at a picture once, though several windows show it.

    Pictures are known by their bytes, and each goes through the network alone; so an answer never depends on what was
    asked before, nor on which pictures came with it.

    Args:
        network: asked for one picture at a time.
        most: pictures that are kept.
    """

    def __init__(self, network: DepthNetwork, most: int) -> None:
        self.network, self.most = network, most
        self._kept: OrderedDict[bytes, FrameDepths] = OrderedDict()

    def __call__(self, rgb: Float[Tensor, "N H W 3"]) -> FrameDepths:
        """Depths of pictures in [0, 1].

        Raises:
            ValueError: the network answers at another size.
        """
        found = [self._one(picture) for picture in rgb]
        known = [f.intrinsics for f in found if f.intrinsics is not None]
        sky = [f.sky for f in found if f.sky is not None]
        return FrameDepths(
            torch.cat([f.disparity for f in found]),
            torch.cat(known) if len(known) == len(found) else None,
            torch.cat(sky) if len(sky) == len(found) else None,
        )

    def _one(self, picture: Float[Tensor, "H W 3"]) -> FrameDepths:
        picture = picture.contiguous()
        key = hashlib.blake2b(picture.numpy().tobytes() + str(tuple(picture.shape)).encode()).digest()
        if key not in self._kept:
            answer = self.network(picture[None])
            size = (1, picture.shape[0], picture.shape[1])
            if tuple(answer.disparity.shape) != size:
                raise ValueError(
                    f"expected disparity {size} of a picture of that size from the depth network, got "
                    f"{tuple(answer.disparity.shape)}; resize it to the picture"
                )
            self._kept[key] = answer
        self._kept.move_to_end(key)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return self._kept[key]
