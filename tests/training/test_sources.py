from dataclasses import replace

import torch

from geo4d.synthetic.render import iter_clips
from geo4d.synthetic.scene import CAMERAS, SceneMix
from geo4d.training.sources import SyntheticSource

SIZE = (32, 48)


def test_plain_source_is_the_stream_of_the_generator():
    source = SyntheticSource(11, SIZE, 2, (4.0,), still={})
    mix = SceneMix(cameras=CAMERAS, fps=(4.0,))
    for index in (0, 3):
        stream = next(iter_clips(11, SIZE, 2, mix, start=index))
        assert torch.equal(source.clip(index).rgb, stream.rgb)
        assert torch.equal(source.clip(index).depth, stream.depth)


def test_closed_rooms_show_no_sky():
    source = SyntheticSource(20261120, SIZE, 2, (4.0,), indoor=1000.0)
    closed = replace(source, open_rooms=0.0)
    before = [source.clip(i) for i in range(24)]
    rooms = [clip.config.kind == "room" for clip in before]
    share = [float((~clip.valid).float().mean()) for clip in before]
    assert sum(rooms) >= 20
    assert max(share[i] for i in range(24) if rooms[i]) > 0.02
    after = [closed.clip(i) for i in range(24) if rooms[i]]
    assert all(clip.config.kind == "room" for clip in after)
    assert max(float((~clip.valid).float().mean()) for clip in after) < 0.005


def test_blank_share_changes_colours_only_where_drawn():
    plain = SyntheticSource(5, SIZE, 2, (4.0,))
    some = replace(plain, blank=0.5)
    same = [torch.equal(plain.clip(i).rgb, some.clip(i).rgb) for i in range(12)]
    assert any(same)
    assert not all(same)
    assert torch.equal(some.clip(1).rgb, some.clip(1).rgb)
