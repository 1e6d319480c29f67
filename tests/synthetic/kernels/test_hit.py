import numpy as np

from geo4d.synthetic.render import render_clip
from geo4d.synthetic.shapes import BOX, CONE, CYLINDER, SPHERE
from tests.support.rendered import SIZE, scene_of, world_points


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
