import pytest
import torch

from geo4d.synthetic.render import track_points
from tests.support.rendered import SIZE, pixel_centres, project, scene_of, world_points


def test_flow_of_static_pixels_is_the_reprojection(scene_and_clip):
    _, clip = scene_and_clip
    u, v = pixel_centres()
    for t in range(clip.num_frames - 1):
        target, z = project(world_points(clip, t), clip, t + 1)
        expected = target - torch.stack([u, v], -1)
        static = ~clip.dynamic[t] & (z > 0.1)
        assert static.float().mean() > 0.2
        torch.testing.assert_close(clip.flow[t].double()[static], expected[static], rtol=1e-4, atol=2e-3)


def test_tracks_are_the_flow_of_their_pixel(scene_and_clip):
    scene, clip = scene_and_clip
    u, v = pixel_centres()
    row, column = torch.meshgrid(torch.arange(2, 36, 5), torch.arange(2, 60, 5), indexing="ij")
    row, column = row.flatten(), column.flatten()
    query = torch.stack([u[row, column], v[row, column]], -1).float()
    kept = clip.valid[1][row, column]
    tracks = track_points(scene, SIZE, torch.ones(len(row), dtype=torch.long), query)
    assert len(tracks.pixels) == int(kept.sum())
    torch.testing.assert_close(tracks.pixels[:, 1], query[kept], rtol=0, atol=1e-3)
    flow = clip.flow[1][row, column][kept]
    torch.testing.assert_close(
        tracks.pixels[:, 2] - tracks.pixels[:, 1], flow, rtol=1e-4, atol=3e-3, equal_nan=True
    )
    assert torch.equal(tracks.visible[:, 2], clip.flow_visible[1][row, column][kept])
    assert torch.equal(tracks.dynamic, clip.dynamic[1][row, column][kept])
    assert tracks.visible[:, 1].all()


def test_tracks_project_onto_their_pixels(scene_and_clip):
    _, clip = scene_and_clip
    tracks = clip.tracks
    assert len(tracks.pixels) > 50
    for t in range(clip.num_frames):
        pixels, z = project(tracks.points[:, t], clip, t)
        seen = tracks.visible[:, t]
        torch.testing.assert_close(pixels[seen].float(), tracks.pixels[seen, t], rtol=0, atol=1e-2)
        assert (z[seen] > 0).all()
    spread = (tracks.points - tracks.points[:, :1]).norm(dim=-1).amax(1)
    assert spread[~tracks.dynamic].max() < 1e-4
    picked = tracks.visible[torch.arange(len(tracks.query_frame)), tracks.query_frame]
    assert picked.all()


def test_tracks_of_foreign_frames_are_refused():
    scene = scene_of("room", num_frames=2)
    with pytest.raises(ValueError, match=r"query frames in 0\.\.1"):
        track_points(scene, SIZE, torch.tensor([2]), torch.tensor([[3.0, 3.0]]))
    empty = track_points(scene, SIZE, torch.zeros(0, dtype=torch.long), torch.zeros(0, 2))
    assert empty.pixels.shape == (0, 2, 2)
