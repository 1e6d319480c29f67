"""Window plans."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d.video.windows import padded_indices, plan_windows, published_windows, wide_windows


def test_published_list_repeats_the_last_window() -> None:
    assert published_windows(20) == [(0, 16), (4, 20), (4, 20)]
    assert published_windows(17) == [(0, 16), (1, 17)]
    with pytest.raises(ValueError, match="at least 16 frames, got 15"):
        published_windows(15)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 20))
def test_plan_covers_every_frame_once_per_window(num_frames: int, length: int, stride: int) -> None:
    if stride > length:
        with pytest.raises(ValueError, match="stride"):
            plan_windows(num_frames, length, stride)
        return
    windows = plan_windows(num_frames, length, stride)
    assert len(set(windows)) == len(windows)
    assert windows == sorted(windows)
    assert windows[-1][1] == num_frames
    assert {f for start, end in windows for f in range(start, end)} == set(range(num_frames))
    assert all(end - start == min(length, num_frames) for start, end in windows)


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [0] * 8),
        (2, [0, 1, 0, 1, 0, 1, 0, 1]),
        (3, [0, 1, 2, 1, 0, 1, 2, 1]),
        (8, list(range(8))),
    ],
)
def test_padding_plays_forth_and_back(num_frames: int, expected: list[int]) -> None:
    assert padded_indices(num_frames, 8) == expected


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(2, 20), st.integers(2, 12))
def test_wide_windows_are_whole_and_overlap_by_half(num_frames: int, length: int, step: int) -> None:
    windows = wide_windows(num_frames, length, step)
    assert bool(windows) == (num_frames > (length - 1) * step)
    assert all(len(w) == length and w.step == step and w[-1] < num_frames for w in windows)
    assert all(b[0] <= a[0] + len(range(a[0], a[-1] + 1)) // 2 + 1 for a, b in pairwise(windows))


@pytest.mark.parametrize("arguments", [(0, 16, 4), (5, 0, 4), (5, 4, 0)])
def test_nonsense_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        plan_windows(*arguments)
    with pytest.raises(ValueError, match="expected"):
        padded_indices(9, 8)
