import pytest

from geo4d.video.headers.page import Page


@pytest.mark.parametrize("orientation", range(1, 9))
def test_four_of_the_eight_orientations_lie_on_their_side(orientation: int) -> None:
    assert Page((30, 40), orientation).size == ((40, 30) if orientation in (5, 6, 7, 8) else (30, 40))
