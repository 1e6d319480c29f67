"""What several tests share."""

import numpy as np

from geo4d.datasets.base import Sequence
from geo4d.datasets.pieces import constant_intrinsics


def make(frames=4, size=(6, 8), **changes):
    rng = np.random.default_rng(0)
    fields = {
        "name": "a",
        "dataset": "test",
        "times_s": np.arange(frames) / 10,
        "size": size,
        "rgb": rng.random((frames, *size, 3), np.float32),
        "depth": rng.random((frames, *size), np.float32) + 1,
        "intrinsics": constant_intrinsics(frames, 10, 10, 4, 3, integer_centres=False),
        "c2w": np.tile(np.eye(4), (frames, 1, 1)),
        **changes,
    }
    return Sequence(**fields)
