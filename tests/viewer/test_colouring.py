"""What the viewer colours by."""

import dataclasses

import numpy as np
import pytest

from geo4d.viewer.colouring import Colouring, plain_colours, share_of, threshold_of
from tests.viewer.test_report import scene  # noqa: F401


@pytest.mark.parametrize("share", [1, 10, 50, 99, 100])
def test_a_share_becomes_the_threshold_that_keeps_it(share: int, rng) -> None:
    certain = np.sort(rng.random(1000))
    threshold = threshold_of(certain, share)
    assert 100 * (certain >= threshold).mean() == pytest.approx(share, abs=0.11)
    assert share_of(certain, threshold) == pytest.approx(share, abs=0.11)


def test_a_share_of_nothing_and_of_what_is_all_the_same() -> None:
    assert threshold_of(np.zeros(0), 50) == 0
    assert share_of(np.zeros(0), 0.5) == 100
    assert threshold_of(np.full(9, 0.3), 1) == 0.3
    assert share_of(np.full(9, 0.3), 0.3) == 100


def test_only_what_there_is_can_be_chosen(scene) -> None:  # noqa: F811
    assert Colouring(scene, [0, 4]).choices == ("picture", "depth", "confidence", "moving")
    bare = Colouring(dataclasses.replace(scene, rgb=None, dynamic=None), [0, 4])
    assert bare.choices == ("depth", "confidence")
    with pytest.raises(ValueError, match="depth, confidence, got moving"):
        bare.picture(0, "moving")


def test_pictures_have_their_colours_and_legends_their_words(scene) -> None:  # noqa: F811
    colouring = Colouring(scene, [0, 4])
    np.testing.assert_array_equal(
        colouring.picture(1, "picture"), np.round(255 * scene.rgb[1]).astype(np.uint8)
    )
    assert "near 1.0" in colouring.legend("depth")
    assert "1.00 sure" in colouring.legend("confidence")
    metres = Colouring(dataclasses.replace(scene, scale_kind="metric"), [0, 4])
    assert " m far" in metres.legend("depth")
    assert plain_colours(3).shape == (3, 3)
