"""Predictions made from the truth, for scoring tests."""

import numpy as np

from geo4d.evaluation.predicted import Predicted


def truth(sequence, **changes):
    fields = {
        "frames": np.arange(sequence.num_frames),
        "size": sequence.size,
        "maps": sequence.depth / 3,
        "intrinsics": sequence.intrinsics,
        "c2w": sequence.c2w,
        **changes,
    }
    return Predicted(**fields)
