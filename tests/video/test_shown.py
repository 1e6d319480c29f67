"""A video as a sequence, and what a notebook shows of it."""

import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.video.io import Video
from geo4d.video.shown import video_html


@pytest.fixture
def video() -> Video:
    frames = np.zeros((5, 8, 12, 3), np.uint8)
    frames[:] = 10 * np.arange(5)[:, None, None, None]
    return Video(frames, fps=10)


def levels(pictures: torch.Tensor) -> list[int]:
    return (255 * pictures[..., 0, 0, 0]).round().int().reshape(-1).tolist()


def test_a_video_is_a_sequence_of_pictures(video) -> None:
    assert [levels(picture) for picture in video] == [[0], [10], [20], [30], [40]]
    assert video[-1].shape == (8, 12, 3)
    assert levels(video[-1]) == [40]
    assert levels(video[1:4:2]) == [10, 30]
    assert levels(video[[4, 0]]) == [40, 0]
    assert video[5:].shape == (0, 8, 12, 3)
    with pytest.raises(IndexError):
        video[5]


def test_a_page_shows_first_middle_and_last(video, monkeypatch) -> None:
    text = video._repr_html_()
    assert text.count("<img") == 3
    assert "alt='frame 2, 0.20 s'" in text
    assert "5 frames, 12x8, 10 fps" in text

    def fail(*args: object) -> None:
        raise InputError("cut <off>")

    monkeypatch.setattr(video, "_frame", fail)
    text = video_html(video, [0])
    assert "<img" not in text
    assert "frame 0 cannot be read: cut &lt;off&gt;" in text
