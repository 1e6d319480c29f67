"""Fields of two moments, woven into frames here, must come back as the picture of one of them."""

from fractions import Fraction

import av
import numpy as np

from geo4d.video.deinterlace import deinterlaced

HEIGHT, WIDTH = 64, 96


def bar(position: float) -> np.ndarray:
    """A soft grey bar on black, [H, W]."""
    x = np.arange(WIDTH) + 0.5
    return np.tile(np.clip(255 * np.exp(-(((x - position) / 5) ** 2)), 0, 255), (HEIGHT, 1)).astype(np.uint8)


def frames(interlaced: bool, count: int = 6):
    for k in range(count):
        first, second = bar(20 + 8 * k), bar(20 + 8 * k + (4 if interlaced else 0))
        picture = first.copy()
        picture[1::2] = second[1::2]  # the lower field is half a step later
        frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
        frame.pts = k
        frame.time_base = Fraction(1, 25)
        yield frame


def marked(given):
    """Frames that say of themselves that they hold two fields, the upper one first."""
    graph = av.filter.Graph()
    first = next(given)
    source = graph.add_buffer(width=WIDTH, height=HEIGHT, format=first.format, time_base=first.time_base)
    field, sink = graph.add("setfield", "mode=tff"), graph.add("buffersink")
    source.link_to(field)
    field.link_to(sink)
    graph.configure()
    for frame in (first, *given):
        graph.vpush(frame)
        yield graph.vpull()


def grey(picture: av.VideoFrame) -> np.ndarray:
    return picture.to_ndarray(format="gray").astype(int)


def test_progressive_frames_come_back_as_they_are_and_all_of_them() -> None:
    given = list(frames(False))
    found = list(deinterlaced(iter(given)))
    assert [pair[0] for pair in found] == given
    for frame, picture in found:
        assert np.abs(grey(picture) - grey(frame)).max() <= 1


def test_no_frames_are_none() -> None:
    assert list(deinterlaced(iter([]))) == []


def test_a_moving_bar_has_no_comb_any_more() -> None:
    found = list(deinterlaced(marked(frames(True))))
    assert len(found) == 6

    def comb(picture: np.ndarray) -> float:
        """Difference of neighbouring rows: those of one field are equal here."""
        return float(np.abs(np.diff(picture[4:-4], axis=0)).mean())

    for frame, picture in found[1:-1]:
        assert comb(grey(picture)) < 0.3 * comb(grey(frame))
