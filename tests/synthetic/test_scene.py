from dataclasses import replace
from itertools import islice

import pytest
import torch

from geo4d.synthetic import render
from geo4d.synthetic.render import clip_seed, iter_clips, iter_frames, render_clip
from geo4d.synthetic.scene import SCENE_KINDS, SceneConfig, SceneMix, without_movers
from tests.support.rendered import SIZE, scene_of


def test_movers_can_be_taken_out(scene_and_clip):
    scene, clip = scene_and_clip
    still = render_clip(without_movers(scene), SIZE)
    torch.testing.assert_close(still.c2w, clip.c2w)
    assert not still.dynamic.any()
    assert torch.equal(still.depth[~clip.dynamic], clip.depth[~clip.dynamic])
    assert (still.depth[clip.dynamic] > clip.depth[clip.dynamic]).all()


def test_stream_follows_the_mix():
    only_rooms = SceneMix(kinds={"room": 1.0}, zoom=1.0, fps=(8.0,))
    for clip in islice(iter_clips(1, (12, 20), 3, only_rooms), 3):
        assert clip.config.kind == "room"
        assert clip.config.zoom
        assert clip.times_s.tolist() == pytest.approx([0.0, 0.125, 0.25])
    configs = [render.sample_config(clip_seed(0, i), 4, 0.6) for i in range(600)]
    share = {kind: sum(c.kind == kind for c in configs) / 600 for kind in SCENE_KINDS}
    assert share["object_on_ground"] == pytest.approx(0.45, abs=0.07)
    assert share["street"] == pytest.approx(0.25, abs=0.06)
    assert share["room"] == pytest.approx(0.20, abs=0.06)
    assert sum(c.camera == "static" for c in configs) / 600 == pytest.approx(0.20, abs=0.06)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="supersample"):
        next(iter_frames(scene_of("room", num_frames=1), SIZE, supersample=0))
    with pytest.raises(ValueError, match="num_frames"):
        SceneConfig(seed=0, num_frames=0)
    with pytest.raises(ValueError, match="weights"):
        SceneMix(kinds={})
    with pytest.raises(ValueError, match="num_frames"):
        replace(SceneConfig(seed=0), fps=0.0)
