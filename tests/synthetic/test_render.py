import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from geo4d.errors import MissingExtraError
from geo4d.synthetic import render
from geo4d.synthetic.render import clip_seed, iter_clips, iter_frames, make_scene, render_clip, track_points
from geo4d.synthetic.scene import SCENE_KINDS, SceneConfig, SceneMix, without_movers
from geo4d.synthetic.shapes import BOX, CONE, CYLINDER, SPHERE

SIZE = (36, 60)


def scene_of(kind, camera="handheld", seed=3, **more):
    return make_scene(
        SceneConfig(seed=seed, kind=kind, camera=camera, num_frames=more.pop("num_frames", 5), **more)
    )


@pytest.fixture(scope="module", params=SCENE_KINDS)
def scene_and_clip(request):
    scene = scene_of(request.param)
    return scene, render_clip(scene, SIZE, with_flow=True, num_tracks=150)


def pixel_centres(size=SIZE):
    v, u = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    return u.double(), v.double()


def world_points(clip, t):
    """Points of frame t in the world; sky pixels end up very far away."""
    u, v = pixel_centres(clip.size)
    k, c2w = clip.intrinsics[t].double(), clip.c2w[t].double()
    z = torch.where(clip.valid[t], clip.depth[t].double(), 1e7)
    ray = torch.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], torch.ones_like(u)], -1)
    return (ray * z[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]


def project(points, clip, t):
    k, c2w = clip.intrinsics[t].double(), clip.c2w[t].double()
    camera = (points.double() - c2w[:3, 3]) @ c2w[:3, :3]
    z = camera[..., 2]
    u = camera[..., 0] / z * k[0, 0] + k[0, 2]
    v = camera[..., 1] / z * k[1, 1] + k[1, 2]
    return torch.stack([u, v], -1), z


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


def test_flow_of_static_pixels_is_the_reprojection(scene_and_clip):
    _, clip = scene_and_clip
    u, v = pixel_centres()
    for t in range(clip.num_frames - 1):
        target, z = project(world_points(clip, t), clip, t + 1)
        expected = target - torch.stack([u, v], -1)
        static = ~clip.dynamic[t] & (z > 0.1)
        assert static.float().mean() > 0.2
        torch.testing.assert_close(clip.flow[t].double()[static], expected[static], rtol=1e-4, atol=2e-3)


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


def test_hit_points_lie_on_their_primitive_and_nothing_is_in_front(scene_and_clip):
    # an independent look: implicit functions of the unit shapes, sampled along the ray
    scene, clip = scene_and_clip
    rng = np.random.default_rng(0)

    def inside(shape, p):
        if shape == SPHERE:
            return 1.0 - (p**2).sum(-1)
        if shape == BOX:
            return 1.0 - np.abs(p).max(-1)
        if shape == CYLINDER:
            return np.minimum(1.0 - np.hypot(p[..., 0], p[..., 2]), 1.0 - np.abs(p[..., 1]))
        if shape == CONE:
            side = 0.5 * (p[..., 1] + 1.0) - np.hypot(p[..., 0], p[..., 2])
            return np.minimum(side, 1.0 - np.abs(p[..., 1]))
        waves = scene.terrain
        height = (
            waves[:, 2] * np.sin(p[..., :1] * waves[:, 0] + p[..., 2:] * waves[:, 1] + waves[:, 3])
        ).sum(-1)
        return height + p[..., 1]  # y points down

    def local(p, points):
        return points @ scene.w2l[t, p, :3, :3].T + scene.w2l[t, p, :3, 3]

    t = 2
    points = world_points(clip, t).numpy()
    eye = clip.c2w[t, :3, 3].double().numpy()
    solid = [
        p
        for p in range(scene.num_primitives)
        if scene.cutout[p] < 0 and inside(scene.shape[p], local(p, eye)) < 0
    ]
    checked = 0
    for _ in range(60):
        i, j = rng.integers(SIZE[0]), rng.integers(SIZE[1])
        point = points[i, j]
        if clip.valid[t, i, j]:
            owners = np.flatnonzero(scene.object_of == int(clip.object_id[t, i, j]))
            assert min(abs(inside(scene.shape[p], local(p, point))) for p in owners) < 1e-3
            checked += 1
            reach = 0.995
        else:
            point, reach = eye + (point - eye) / np.linalg.norm(point - eye) * 60.0, 1.0
        steps = eye + np.linspace(0.02, reach, 300)[:, None] * (point - eye)
        for p in solid:
            assert inside(scene.shape[p], local(p, steps)).max() < 2e-2
    assert checked > 10


def test_flat_ground_has_the_depth_of_a_plane():
    clip = render_clip(scene_of("object_on_ground"), SIZE)
    on_ground = clip.object_id == 1
    assert on_ground.float().mean() > 0.1
    for t in range(clip.num_frames):
        height = world_points(clip, t)[..., 1][on_ground[t]]
        assert height.abs().max() < 1e-3


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


def test_movers_can_be_taken_out(scene_and_clip):
    scene, clip = scene_and_clip
    still = render_clip(without_movers(scene), SIZE)
    torch.testing.assert_close(still.c2w, clip.c2w)
    assert not still.dynamic.any()
    assert torch.equal(still.depth[~clip.dynamic], clip.depth[~clip.dynamic])
    assert (still.depth[clip.dynamic] > clip.depth[clip.dynamic]).all()


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


def angle_between(a, b):
    cosine = (torch.einsum("ij,ij->", a[:3, :3].double(), b[:3, :3].double()) - 1) / 2
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


def test_static_cameras_stand_still():
    for kind in SCENE_KINDS:
        scene = scene_of(kind, "static", seed=8)
        assert np.array_equal(scene.c2w, np.broadcast_to(scene.c2w[:1], scene.c2w.shape))
    clip = render_clip(scene_of("object_on_ground", "static"), SIZE, with_flow=True)
    still = ~clip.dynamic[:-1]
    assert clip.flow[still].abs().max() < 1e-3
    assert clip.flow[clip.dynamic[:-1]].abs().max() > 0.1


def test_pans_turn_without_moving():
    angles = []
    for seed in range(12):
        scene = scene_of("street", "pan", seed=seed, num_frames=12)
        assert np.ptp(scene.c2w[:, :3, 3], axis=0).max() == 0.0
        c2w = torch.from_numpy(scene.c2w)
        angles.append(angle_between(c2w[0], c2w[-1]))
    assert 1.0 < min(angles) < 30.0
    assert 45.0 < max(angles) < 100.0


@pytest.mark.parametrize("camera", ["handheld", "dolly", "orbit", "driving"])
def test_moving_cameras_move_smoothly(camera):
    kind = "street" if camera == "driving" else "object_on_ground"
    ways = []
    for seed in range(6):
        scene = scene_of(kind, camera, seed=seed, num_frames=16)
        steps = np.linalg.norm(np.diff(scene.c2w[:, :3, 3], axis=0), axis=-1)
        ways.append(steps.sum())
        assert steps.max() < 6.0 * np.median(steps) + 0.05
        rotation = scene.c2w[:, :3, :3]
        assert np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max() < 1e-12
        assert np.abs(np.linalg.det(rotation) - 1.0).max() < 1e-12
    assert np.median(ways) > 0.1


def test_zoom_changes_the_focal_length_only_when_asked():
    plain = scene_of("street", "static", zoom=False, num_frames=8)
    assert np.ptp(plain.focal) == 0.0
    zoomed = scene_of("street", "static", zoom=True, num_frames=8)
    ratio = zoomed.focal[-1] / zoomed.focal[0]
    assert max(ratio, 1.0 / ratio) > 1.15
    clip = render_clip(zoomed, SIZE, with_flow=True)
    torch.testing.assert_close(clip.intrinsics[:, 0, 0], torch.from_numpy(zoomed.focal * SIZE[1]).float())
    u, v = pixel_centres()
    target, _ = project(world_points(clip, 0), clip, 1)
    static = ~clip.dynamic[0]
    expected = (target - torch.stack([u, v], -1))[static]
    torch.testing.assert_close(clip.flow[0][static].double(), expected, rtol=1e-4, atol=2e-3)


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


def test_one_frame_is_enough():
    clip = render_clip(scene_of("room", num_frames=1), SIZE, with_flow=True, num_tracks=5)
    assert clip.rgb.shape == (1, *SIZE, 3)
    assert clip.flow.shape == (0, *SIZE, 2)


def test_long_clips_stay_in_their_scene():
    for kind, camera in (("street", "driving"), ("object_on_ground", "dolly"), ("room", "handheld")):
        scene = scene_of(kind, camera, seed=2, num_frames=900)
        assert np.abs(scene.c2w[:, :3, 3] - scene.c2w[0, :3, 3]).max() < 60.0
        share = [
            float((f.object_id > 0).float().mean()) for f in iter_frames(scene, (12, 20), range(0, 900, 90))
        ]
        assert np.mean(share) > 0.3


def test_tracks_of_foreign_frames_are_refused():
    scene = scene_of("room", num_frames=2)
    with pytest.raises(ValueError, match=r"query frames in 0\.\.1"):
        track_points(scene, SIZE, torch.tensor([2]), torch.tensor([[3.0, 3.0]]))
    empty = track_points(scene, SIZE, torch.zeros(0, dtype=torch.long), torch.zeros(0, 2))
    assert empty.pixels.shape == (0, 2, 2)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="supersample"):
        next(iter_frames(scene_of("room", num_frames=1), SIZE, supersample=0))
    with pytest.raises(ValueError, match="num_frames"):
        SceneConfig(seed=0, num_frames=0)
    with pytest.raises(ValueError, match="weights"):
        SceneMix(kinds={})
    with pytest.raises(ValueError, match="num_frames"):
        replace(SceneConfig(seed=0), fps=0.0)


def test_missing_numba_is_named(monkeypatch):
    import geo4d.synthetic

    for name in [name for name in sys.modules if name.startswith("geo4d.synthetic.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(geo4d.synthetic, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingExtraError, match=r"geo4d\[synthetic\]"):
        make_scene(SceneConfig(seed=0))
