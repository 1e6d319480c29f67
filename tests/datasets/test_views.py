import numpy as np
import pytest

from geo4d.datasets.views import centre_crop, select
from tests.support.sequences import make


def test_views_are_lazy_and_consistent():
    sequence = make()
    part = select(sequence, slice(1, 4, 2))
    assert part.num_frames == 2
    np.testing.assert_array_equal(part.depth[1], sequence.depth[3])
    np.testing.assert_array_equal(part.times_s, sequence.times_s[[1, 3]])
    cropped = centre_crop(sequence, (4, 4))
    np.testing.assert_array_equal(cropped.depth[0], sequence.depth[0][1:5, 2:6])
    np.testing.assert_array_equal(cropped.rgb[2], sequence.rgb[2][1:5, 2:6])
    # The same point lands on the same pixel of the crop.
    np.testing.assert_allclose(cropped.intrinsics[0, :2, 2], sequence.intrinsics[0, :2, 2] - [2, 1])
    with pytest.raises(ValueError, match="at least"):
        centre_crop(sequence, (7, 4))
