"""One clip of every layout, drawn once for each file of tests."""

import pytest

from geo4d.synthetic.render import render_clip
from geo4d.synthetic.scene import SCENE_KINDS
from tests.support.rendered import SIZE, scene_of


@pytest.fixture(scope="module", params=SCENE_KINDS)
def scene_and_clip(request):
    scene = scene_of(request.param)
    return scene, render_clip(scene, SIZE, with_flow=True, num_tracks=150)
