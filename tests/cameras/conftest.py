"""A room that cameras move through."""

import pytest


@pytest.fixture(scope="module")
def room(make_room):
    return make_room(num_frames=9, size=(120, 160), focal=130.0, travel=0.8, turn=0.2)
