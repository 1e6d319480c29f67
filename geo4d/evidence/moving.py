"""What moves in a video: optical flow against the cameras from tracks, found once per run and kept on disk.

It does not depend on any predicted depth, so it tells the evidence where not to be trusted, and becomes the dynamic
probability of the result.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from geo4d.cameras.types import MotionCameras
from geo4d.evidence.masks import MaskConfig, iter_motion_probability
from geo4d.formats.arrays import holds_arrays, load_arrays, save_arrays
from geo4d.video.io import Video, fit_size

FLOW_SIZE = 320
"""Longest side of the pictures that flow is computed on."""

_BLOCK = 64


class MovingMaps:
    """Probability that a pixel shows something moving, of any frame; read block by block.

    Args:
        folder: with the files that ``find_moving`` wrote.
        motion: cameras of the video.
    """

    def __init__(self, folder: Path, motion: MotionCameras) -> None:
        self._folder, self._motion = folder, motion
        self._held: tuple[int, np.ndarray] = (-1, np.zeros(0, np.uint8))

    @property
    def everywhere(self) -> bool:
        """Whether every frame has a map."""
        return bool((self._motion.confidence > 0).all())

    def at(self, frame: int, size: tuple[int, int]) -> Float[Tensor, "H W"] | None:
        """The probability at a size, or None where the cameras of the frame are not known."""
        if float(self._motion.confidence[frame]) <= 0:
            return None
        block = frame // _BLOCK
        if self._held[0] != block:
            arrays, _ = load_arrays(_block_path(self._folder, block))
            self._held = (block, arrays["probability"])
        small = torch.from_numpy(self._held[1][frame % _BLOCK].astype(np.float32) / 255)
        return interpolate(small[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def find_moving(
    clip: Video, motion: MotionCameras, folder: Path, progress: Callable[[str, int, int], None]
) -> MovingMaps:
    """Compare every frame's flow with what its camera allows; a resumed run finds what is there.

    Args:
        motion: cameras of the clip.
        folder: gets one small file per 64 frames.
    """
    blocks = -(-clip.num_frames // _BLOCK)
    if not all(holds_arrays(_block_path(folder, block)) for block in range(blocks)):
        frames = clip.frames(fit_size(clip.size, FLOW_SIZE))
        found = iter_motion_probability(motion, frames, MaskConfig(width=FLOW_SIZE))
        counted = _counted(found, clip.num_frames, progress)
        for block in range(blocks):
            maps = islice(counted, _BLOCK)
            whole = np.stack([(255 * p).round().clamp(0, 255).byte().numpy() for p in maps])
            save_arrays(_block_path(folder, block), {"probability": whole}, {})
    return MovingMaps(folder, motion)


def _counted(
    maps: Iterable[Tensor], count: int, progress: Callable[[str, int, int], None]
) -> Iterator[Tensor]:
    for done, probability in enumerate(maps):
        progress("find what moves", done + 1, count)
        yield probability


def _block_path(folder: Path, block: int) -> Path:
    return folder / f"moving_{block:04d}.zarr.zip"
