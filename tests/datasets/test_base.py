"""Sequence checks, lazy views, and the public samples where a folder with them is named."""

import numpy as np
import pytest

from geo4d.errors import InputError
from tests.support.sequences import make


def test_lengths_sizes_and_times_are_checked():
    with pytest.raises(InputError, match="c2w"):
        make(c2w=np.eye(4)[None])
    with pytest.raises(InputError, match="size"):
        make(size=(5, 8), depth=np.ones((4, 6, 8), np.float32))
    with pytest.raises(InputError, match="frame 2"):
        make(times_s=np.array([0.0, 0.1, 0.1, 0.2]))
    with pytest.raises(InputError, match="found none"):
        make(frames=0)
