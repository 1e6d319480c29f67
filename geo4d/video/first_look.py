"""What the first decode of a video tells beside the number of its frames: shot cuts, and the looks of the frames.

A video file has to be decoded once before anything is known of it: only that says how many frames are readable. ``Video``
shows a ``FirstLook`` small pictures of the frames in use on the way.
"""

from jaxtyping import Float
from torch import Tensor

from geo4d.video.revisits import FrameLooks
from geo4d.video.shots import ShotFinder

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
