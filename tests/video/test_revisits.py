"""Places that a video shows twice."""

import pytest
import torch

from geo4d.video.revisits import FrameLooks, RevisitConfig

CONFIG = RevisitConfig(min_gap=40, spacing=20, step=2)


def pan(columns, seed=0):
    """Frames cut out of one wide picture at the given columns."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, 9, 90), generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (36, 900), mode="bicubic")[0].clamp(0, 1).movedim(0, -1)
    return [wide[:, c : c + 64] for c in columns]


def revisits(frames, length=8):
    looks = FrameLooks()
    for frame in frames:
        looks.add(frame)
    return looks.revisits(0, len(frames), length, CONFIG)


def test_second_visit_is_found_in_either_direction():
    there = list(range(0, 600, 8))
    again = revisits(pan([*there, *there[20:50]]))
    assert again
    assert all(second[0] - first[0] == len(there) - 20 for first, second in again)
    back = revisits(pan([*there, *there[::-1]]))
    assert back
    last = 2 * len(there) - 1
    assert all(abs(first[0] + second[-1] - last) <= 1 for first, second in back)


def test_brightness_does_not_hide_a_place():
    there = list(range(0, 600, 8))
    frames = pan([*there, *there[20:50]])
    assert revisits([*frames[: len(there)], *(0.6 * f + 0.2 for f in frames[len(there) :])])


@pytest.mark.parametrize("columns", [[100] * 120, list(range(0, 720, 6))], ids=["still", "ever new"])
def test_nothing_to_come_back_to(columns):
    assert revisits(pan(columns)) == []


def test_frames_must_be_watched():
    with pytest.raises(ValueError, match="watched"):
        FrameLooks().revisits(0, 5, 2)
    assert FrameLooks().revisits(0, 0, 2) == []
