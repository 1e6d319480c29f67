import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from geo4d.errors import MissingExtraError
from geo4d.synthetic.render import iter_clips, iter_frames, make_scene, render_clip
from geo4d.synthetic.scene import SceneConfig
from tests.support.rendered import SIZE, project, scene_of, world_points


def smooth_neighbourhood(depth):
    """Pixels whose 3 x 3 neighbours have nearly the same depth."""
    d = torch.where(torch.isfinite(depth), depth, 1e9)[None, None]
    high = torch.nn.functional.max_pool2d(d, 3, 1, 1)[0, 0]
    low = -torch.nn.functional.max_pool2d(-d, 3, 1, 1)[0, 0]
    return (high < 1.1 * low) & torch.isfinite(depth)


def at_nearest(image, pixels):
    column = pixels[..., 0].floor().long().clamp(0, image.shape[1] - 1)
    row = pixels[..., 1].floor().long().clamp(0, image.shape[0] - 1)
    return image[row, column]


def test_warped_depth_agrees_with_the_next_frame(scene_and_clip):
    _, clip = scene_and_clip
    compared = 0
    for t in range(clip.num_frames - 1):
        pixels, z = project(world_points(clip, t), clip, t + 1)
        use = clip.valid[t] & ~clip.dynamic[t] & clip.flow_visible[t]
        use &= at_nearest(smooth_neighbourhood(clip.depth[t + 1]), pixels.nan_to_num())
        # disparity is linear in the pixel on a plane, so that bilinear sampling of it is exact there
        use &= (pixels > 1).all(-1) & (pixels[..., 0] < SIZE[1] - 1) & (pixels[..., 1] < SIZE[0] - 1)
        grid = (pixels.nan_to_num() / torch.tensor([SIZE[1], SIZE[0]]) * 2 - 1).clamp(-1, 1)[None]
        disparity = 1.0 / clip.depth[t + 1].double()[None, None]
        seen = torch.nn.functional.grid_sample(disparity, grid, align_corners=False)[0, 0]
        ratio = (seen * z)[use]
        compared += int(use.sum())
        # the neighbourhood may span 10 %; things thinner than a pixel slip between pixel centres
        assert ((ratio - 1.0).abs() < 0.1).double().mean() > 0.98
        assert (ratio - 1.0).abs().median() < 5e-3
    assert compared > 300


def test_hidden_pixels_lie_behind_something(scene_and_clip):
    _, clip = scene_and_clip
    for t in range(clip.num_frames - 1):
        pixels, z = project(world_points(clip, t), clip, t + 1)
        inside = (pixels > 0).all(-1) & (pixels[..., 0] < SIZE[1]) & (pixels[..., 1] < SIZE[0]) & (z > 0.1)
        hidden = inside & ~clip.flow_visible[t] & clip.valid[t] & ~clip.dynamic[t]
        hidden &= at_nearest(smooth_neighbourhood(clip.depth[t + 1]), pixels.nan_to_num())
        assert (at_nearest(clip.depth[t + 1], pixels.nan_to_num())[hidden] < 1.1 * z[hidden]).all()


def test_masks(scene_and_clip):
    scene, clip = scene_and_clip
    assert torch.equal(clip.valid, torch.isfinite(clip.depth))
    assert torch.equal(clip.valid, clip.object_id > 0)
    assert not (clip.dynamic & ~clip.valid).any()
    moving = set(scene.object_of[scene.dynamic].tolist())
    assert set(clip.object_id[clip.dynamic].unique().tolist()) <= moving
    assert (clip.depth[clip.valid] > 0.1).all()
    assert clip.valid.float().mean() > 0.25
    if scene.subjects:
        share = torch.isin(clip.object_id, torch.tensor(scene.subjects)).float().mean()
        assert 0.02 < share < 0.8


def test_picture_is_exposed_and_not_flat(scene_and_clip):
    _, clip = scene_and_clip
    grey = clip.rgb.float().mean(-1)
    assert 10 < grey.mean() < 245
    assert grey.std() > 8


def test_equal_input_gives_equal_bits_in_any_number_of_threads():
    config = SceneConfig(seed=11, kind="street", camera="driving", num_frames=4)
    reference = render_clip(make_scene(config), SIZE, with_flow=True)
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda _: render_clip(make_scene(config), SIZE, with_flow=True), range(4)))
    for clip in clips:
        for name in ("rgb", "depth", "dynamic", "object_id", "intrinsics", "c2w", "flow", "flow_visible"):
            assert getattr(clip, name).numpy().tobytes() == getattr(reference, name).numpy().tobytes(), name


def test_frames_can_be_drawn_alone():
    scene = scene_of("room", "dolly")
    clip = render_clip(scene, SIZE)
    (frame,) = iter_frames(scene, SIZE, frames=[3])
    assert frame.index == 3
    assert torch.equal(frame.rgb, clip.rgb[3])
    assert torch.equal(frame.depth, clip.depth[3])
    assert frame.time_s == float(clip.times_s[3])


def test_depth_does_not_depend_on_the_size_of_the_picture():
    scene = scene_of("street", "dolly")
    small, large = render_clip(scene, (20, 30)), render_clip(scene, (60, 90))
    # every third pixel centre of the large picture is a pixel centre of the small one
    torch.testing.assert_close(small.depth, large.depth[:, 1::3, 1::3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(small.intrinsics[:, :2] * 3, large.intrinsics[:, :2])
    assert torch.equal(small.c2w, large.c2w)


def test_supersampling_changes_colour_only():
    scene = scene_of("room", num_frames=2)
    plain, fine = render_clip(scene, SIZE), render_clip(scene, SIZE, supersample=2)
    assert torch.equal(plain.depth, fine.depth)
    assert torch.equal(plain.object_id, fine.object_id)
    assert not torch.equal(plain.rgb, fine.rgb)
    assert (plain.rgb.float() - fine.rgb.float()).abs().mean() < 15


def test_stream_is_resumable_and_divisible():
    whole = list(iter_clips(5, SIZE, 2, stop=4))
    late = list(iter_clips(5, SIZE, 2, start=2, stop=4))
    odd = list(iter_clips(5, SIZE, 2, start=1, step=2, stop=4))
    for a, b in ((whole[2], late[0]), (whole[3], late[1]), (whole[1], odd[0]), (whole[3], odd[1])):
        assert a.config == b.config
        assert torch.equal(a.rgb, b.rgb)
    assert len({clip.config.seed for clip in whole}) == 4
    other = next(iter_clips(6, SIZE, 2))
    assert other.config.seed != whole[0].config.seed


def test_one_frame_is_enough():
    clip = render_clip(scene_of("room", num_frames=1), SIZE, with_flow=True, num_tracks=5)
    assert clip.rgb.shape == (1, *SIZE, 3)
    assert clip.flow.shape == (0, *SIZE, 2)


def test_missing_numba_is_named(monkeypatch):
    import geo4d.synthetic

    for name in [name for name in sys.modules if name.startswith("geo4d.synthetic.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(geo4d.synthetic, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingExtraError, match=r"geo4d\[synthetic\]"):
        make_scene(SceneConfig(seed=0))
