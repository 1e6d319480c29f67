import numpy as np
import pytest

from geo4d.formats.ramps import (
    INVALID_COLOUR,
    SKY_COLOUR,
    confidence_to_colours,
    depth_to_colours,
    disparity_range,
    ramp,
    to_uint8,
)


def test_a_ramp_clips_and_takes_nan_for_its_low_end() -> None:
    ends = ramp(np.array([0.0, 1.0]))
    odd = ramp(np.array([-3.0, 7.0, np.nan, -np.inf, np.inf]))
    assert np.array_equal(odd, ends[[0, 1, 0, 0, 1]])
    assert ramp(np.zeros((2, 3, 4))).shape == (2, 3, 4, 3)
    with pytest.raises(ValueError, match="turbo, viridis"):
        ramp(np.zeros(2), "jet")


def test_ramps_are_rgb() -> None:
    turbo = ramp(np.array([0.25, 0.9])).astype(int)
    assert turbo[0, 2] > turbo[0, 0]  # blue below the middle
    assert turbo[1, 0] > turbo[1, 2]  # red near the end
    viridis = confidence_to_colours(np.array([[0.0, 1.0]])).astype(int)
    assert viridis[0, 0].sum() < 200  # dark violet
    assert viridis[0, 1, 0] > 200 > viridis[0, 1, 2]  # yellow


def test_the_range_is_of_disparity_and_of_what_is_known() -> None:
    depth = np.linspace(1, 5, 1001)
    low, high = disparity_range(depth)
    assert (low, high) == pytest.approx(tuple(np.quantile(1 / depth, [0.02, 0.98])))
    with_gaps = np.concatenate([depth, [np.nan, np.inf, -np.inf, 0.0, -2.0]])
    assert disparity_range(with_gaps) == (low, high)
    assert disparity_range(np.array([np.nan, np.inf])) == (0.0, 1.0)


def test_one_depth_everywhere_has_a_range_that_divides() -> None:
    low, high = disparity_range(np.full(5, 2.0))
    assert low == 0.5 < high
    assert np.unique(depth_to_colours(np.full((2, 2), 2.0)).reshape(-1, 3), axis=0).shape == (1, 3)


def test_near_and_far_sky_and_unknown() -> None:
    depth = np.array([[1.0, 10.0, np.inf, np.nan]])
    near, far, sky, unknown = depth_to_colours(depth, (0.1, 1.0))[0].astype(int)
    assert near[0] > near[2]
    assert tuple(sky) == SKY_COLOUR
    assert tuple(unknown) == INVALID_COLOUR
    assert np.array_equal(near, ramp(np.array([1.0]))[0])
    assert np.array_equal(far, ramp(np.array([0.0]))[0])


def test_bytes_are_rounded_and_clipped() -> None:
    rgb = np.array([[-0.2, 0.0, 0.5], [1.0, 1.7, 100.4 / 255]])
    assert to_uint8(rgb).tolist() == [[0, 0, 128], [255, 255, 100]]
