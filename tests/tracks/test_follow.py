import pytest
import torch

from geo4d.tracks.follow import TrackBuilder, TrackConfig, track_points


def true_positions(scene, tracks):
    """Where the point seen in the first observation of each track really goes."""
    first = torch.cat([torch.tensor([True]), tracks.track[1:] != tracks.track[:-1]])
    row = torch.where(first, torch.arange(len(first)), 0).cummax(0).values
    xy, frame = tracks.xy[row].double(), tracks.frame[row]
    depth = scene.depth[frame, xy[:, 1].long(), xy[:, 0].long()].double()
    K = scene.intrinsics[0].double()
    points = torch.cat([xy, torch.ones_like(xy[:, :1])], 1) @ torch.linalg.inv(K).T * depth[:, None]
    motion = torch.linalg.inv(scene.c2w[tracks.frame]) @ scene.c2w[frame]
    there = (motion[:, :3, :3] @ points[..., None])[..., 0] + motion[:, :3, 3]
    projected = there @ K.T
    return projected[:, :2] / projected[:, 2:], first


def test_tracks_follow_the_scene(make_room):
    scene = make_room(num_frames=6, size=(120, 160), focal=130.0, travel=0.3)
    tracks = track_points(scene.rgb)
    truth, first = true_positions(scene, tracks)
    error = (tracks.xy - truth).norm(dim=1)[~first]
    assert tracks.num_tracks > 100
    assert error.median() < 0.3
    assert (error < 2).double().mean() > 0.9


def test_large_motion_is_followed(make_room):
    scene = make_room(num_frames=3, size=(120, 160), focal=130.0, travel=0.2, turn=0.5)
    tracks = track_points(scene.rgb)
    truth, first = true_positions(scene, tracks)
    moved = (truth - tracks.xy[0]).norm(dim=1)
    error = (tracks.xy - truth).norm(dim=1)[~first]
    assert moved.max() > 20
    assert error.median() < 0.5


def test_a_cut_starts_a_new_shot(make_room):
    a = make_room(num_frames=3, size=(72, 96))
    noise = torch.rand(3, 72, 96, 3, generator=torch.Generator().manual_seed(1))
    tracks = track_points([*a.rgb, noise[0], noise[0], *a.rgb])
    assert tracks.starts_shot.tolist() == [True, False, False, True, False, True, False, False]
    starts = tracks.starts_shot.cumsum(0)[tracks.frame]
    assert (starts[1:] == starts[:-1])[tracks.track[1:] == tracks.track[:-1]].all()


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_no_features_give_no_tracks(value):
    tracks = track_points(torch.full((4, 48, 64, 3), value))
    assert tracks.num_tracks == 0
    assert tracks.num_frames == 4
    assert tracks.starts_shot.all()


def test_masked_regions_hold_no_points(make_room):
    scene = make_room(num_frames=4, size=(72, 96))
    mask = torch.zeros(4, 72, 96, dtype=torch.bool)
    mask[:, :, :48] = True
    tracks = track_points(scene.rgb, masks=mask)
    assert tracks.num_tracks > 10
    assert (tracks.xy[:, 0] >= 47).all()


def test_window_is_dense_and_consistent(make_room):
    tracks = track_points(make_room(num_frames=5, size=(72, 96)).rgb)
    xy, visible = tracks.window(1, 4)
    assert xy.shape[0] == 3
    assert (visible.sum(0) >= 2).all()
    assert (xy[~visible] == 0).all()
    inside = (tracks.frame >= 1) & (tracks.frame < 4)
    counts = torch.bincount(tracks.track[inside])
    assert visible.sum() == counts[counts >= 2].sum()


def test_frames_must_keep_their_size():
    builder = TrackBuilder(TrackConfig())
    builder.add(torch.zeros(32, 32, 3))
    with pytest.raises(ValueError, match="size"):
        builder.add(torch.zeros(32, 48, 3))
    with pytest.raises(ValueError, match="at least one frame"):
        TrackBuilder().finish()
