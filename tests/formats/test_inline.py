"""Pictures that a page holds itself."""

import base64
import io
import re

import numpy as np
import pytest

from geo4d.formats.inline import picture_tag, shrunk


def test_a_tag_holds_the_picture_in_its_colours_and_its_words_are_escaped() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[..., 0] = 200
    tag = picture_tag(pixels, "a <b>'red'</b> field", width=80)
    assert "<b>" not in tag
    assert "alt='a &lt;b&gt;&#x27;red" in tag
    assert "width='80' height='40'" in tag
    data = re.search(r"base64,([^']+)", tag)
    assert data is not None
    read = np.asarray(image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB"), int)
    assert read.shape == pixels.shape
    assert np.abs(read - pixels).max() < 8


@pytest.mark.parametrize(
    ("size", "expected"), [((30, 40), (30, 40)), ((41, 20), (21, 10)), ((80, 81), (27, 27))]
)
def test_shrinking_keeps_below_the_longest_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shrunk(np.zeros(size), 40).shape == expected
