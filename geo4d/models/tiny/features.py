"""Encoder features of a window's pictures on a CPU: a few frames at a time, and none twice.

Neighbouring windows share half of their frames. A frame's features depend on its picture alone, so those of the window
before are taken where the picture is the same, byte for byte; the result does not depend on what ran before.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.models.tiny.encoder import PictureEncoder

FRAMES_AT_ONCE = 4
"""Frames whose activations still lie near the processor: 4 take three quarters of the time that 16 or 1 take for each."""


class SharedFeatures:
    """The features of the last window, for the next one.

    Attributes:
        encoder: what makes them.
    """

    def __init__(self, encoder: PictureEncoder) -> None:
        self.encoder = encoder
        self._kept: dict[int, tuple[Tensor, list[Tensor]]] = {}

    def of(self, rgb: Float[Tensor, "T 3 H W"], frames: list[int]) -> list[Float[Tensor, "T C h w"]]:
        """Features at 1/2 to 1/32, in the compute type of the surrounding autocast.

        Args:
            rgb: pictures in [-1, 1].
            frames: their numbers in the video; only says where to look.
        """
        kept = {
            frame: (picture, self._kept[frame][1])
            for frame, picture in zip(frames, rgb, strict=True)
            if frame in self._kept and torch.equal(picture, self._kept[frame][0])
        }
        missing = [at for at, frame in enumerate(frames) if frame not in kept]
        for start in range(0, len(missing), FRAMES_AT_ONCE):
            piece = missing[start : start + FRAMES_AT_ONCE]
            found = self.encoder(rgb[piece].contiguous(memory_format=torch.channels_last))
            for k, at in enumerate(piece):
                kept[frames[at]] = (rgb[at], [level[k : k + 1] for level in found])
        self._kept = kept
        return [torch.cat(level) for level in zip(*(kept[frame][1] for frame in frames), strict=True)]
