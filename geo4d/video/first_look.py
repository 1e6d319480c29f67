"""What the first decode of a video tells beside the number of its frames: shot cuts, and the looks of the frames.

A video file has to be decoded once before anything is known of it: only that says how many frames are readable. ``Video``
shows a ``FirstLook`` small pictures of the frames in use on the way.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.video.lens import Lens
from geo4d.video.revisits import FrameLooks
from geo4d.video.shots import ShotFinder
from geo4d.video.sizes import fit_size, resized

LOOK_SIZE = 128
"""Longest side of the pictures that are looked at, pixels."""


class FirstLook:
    """Shots and looks of the frames that were seen, in order.

    Attributes:
        finder: shot cuts; its ``count`` says how many frames were seen.
        looks: for places that are seen twice; None when they are not wanted.
    """

    def __init__(self, *, looks: bool = False) -> None:
        self._wants_looks = looks
        self.forget()

    def forget(self) -> None:
        """Begin again: what was seen is not what the frames will be."""
        self.finder = ShotFinder()
        self.looks = FrameLooks() if self._wants_looks else None

    def add(self, frame: Float[Tensor, "H W 3"]) -> None:
        """The next frame in use, at most ``LOOK_SIZE`` large, colour in [0, 1]."""
        self.finder.add(frame)
        if self.looks is not None:
            self.looks.add(frame)


class Looking:
    """Shows a ``FirstLook`` the frames in use, as small as it wants them."""

    def __init__(
        self, look: FirstLook, start: int, stride: int, max_size: int | None, lens: Lens | None
    ) -> None:
        self._look, self._start, self._stride, self._max_size = look, start, stride, max_size
        self._lens = lens

    def see(self, index: int, read: Callable[[], np.ndarray]) -> None:
        if index < self._start or (index - self._start) % self._stride:
            return
        frame = read() if self._lens is None else self._lens.undistorted(read())
        size = fit_size(fit_size((frame.shape[0], frame.shape[1]), self._max_size), LOOK_SIZE)
        self._look.add(torch.from_numpy(resized(frame, size)).float() / 255)

    def forget(self) -> None:
        self._look.forget()
