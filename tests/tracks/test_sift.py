import torch

from geo4d.tracks.matches import Matcher, tracks_from_matches
from geo4d.tracks.sift import SiftMatcher
from tests.support.matched import where_they_go


def test_sift_follows_a_wide_turn(make_room):
    scene = make_room(num_frames=5, size=(180, 240), focal=200.0, travel=0.3, turn=0.6)
    matcher = SiftMatcher()
    assert isinstance(matcher, Matcher)
    found = matcher(scene.rgb[0], scene.rgb[2])
    assert len(found.first) > 30
    error = (found.second - where_they_go(scene, 0, 2, found.first)).norm(dim=1)
    assert (error < 2).double().mean() > 0.9
    tracks = tracks_from_matches(scene.rgb, matcher)
    assert not tracks.starts_shot[1:].any()


def test_masked_regions_hold_no_matches(make_room):
    scene = make_room(num_frames=4, size=(96, 128), focal=100.0)
    mask = torch.zeros(4, 96, 128, dtype=torch.bool)
    mask[:, :, :64] = True
    tracks = tracks_from_matches(scene.rgb, SiftMatcher(), masks=mask)
    assert tracks.num_tracks > 10
    assert (tracks.xy[:, 0] >= 64).all()
