"""Strips of the report: what the colours mean stands beside them, and is true."""

import dataclasses
import re

import numpy as np
import pytest

from geo4d.formats.ramps import depth_to_colours, disparity_range
from geo4d.viewer.strips import colour_bar, most_shown, strips
from tests.viewer.test_report import scene  # noqa: F401


@pytest.mark.parametrize(
    ("values", "expected"), [([], 1.0), ([0.02, 0.13], 0.15), ([0.15] * 9, 0.15), ([0.0], 0.05), ([1.0], 1.0)]
)
def test_confidence_is_shown_up_to_what_there_is(values: list[float], expected: float) -> None:
    assert most_shown(np.float32(values)) == pytest.approx(expected)


def test_a_low_confidence_is_no_single_dark_colour(scene) -> None:  # noqa: F811
    low = dataclasses.replace(scene, confidence=np.full_like(scene.depth, 0.1))
    assert "<span class='ends'>0.10</span> probability" in strips(low, 2)


def test_the_ends_of_the_depth_bar_are_the_depths_of_its_colours(scene) -> None:  # noqa: F811
    text = strips(scene, 5)
    near, far = map(float, re.findall(r"(?:near|far), ([\d.]+)<", text))
    assert 1 < near < far < 4
    colours = re.findall(r"rgb\((\d+),(\d+),(\d+)\)", text[text.index("near,") :])[:9]
    shown = depth_to_colours(np.float32([[near, far]]), disparity_range(scene.depth))
    assert np.abs(np.int32(colours[0]) - shown[0, 0]).max() <= 12  # the words have three digits
    assert np.abs(np.int32(colours[8]) - shown[0, 1]).max() <= 12


def test_a_strip_scrolls_by_keys_and_has_a_name(scene) -> None:  # noqa: F811
    text = strips(scene, 3)
    assert "<div class='strip' tabindex='0' role='region' aria-label='3 frames, from left to right'>" in text
    assert text.count("<figure>") == 3
    assert "<figcaption class='bad'>frame 2, 0.08 s, unreliable</figcaption>" in text


def test_a_bar_backwards_begins_with_the_upper_end() -> None:
    forwards, backwards = (
        re.findall(r"rgb\([^)]+\)", colour_bar("turbo", "a", "b", backwards=b)) for b in (False, True)
    )
    assert forwards == backwards[::-1]
    assert forwards != backwards
