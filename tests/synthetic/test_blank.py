import numpy as np
import pytest
import torch

from geo4d.synthetic.blank import blank_surfaces
from geo4d.synthetic.render import make_scene, render_clip
from geo4d.synthetic.scene import SceneConfig

SIZE = (36, 60)


def scene_of(kind, seed):
    return make_scene(SceneConfig(seed=seed, kind=kind, num_frames=2))


def unevenness(scene):
    """Median over surfaces of the spread of brightness inside 3 x 3 neighbourhoods that show one primitive's object."""
    clip = render_clip(scene, SIZE)
    grey = clip.rgb.float().mean(-1)
    spread = grey.unfold(1, 3, 1).unfold(2, 3, 1).flatten(-2).std(-1)
    owner = clip.object_id.unfold(1, 3, 1).unfold(2, 3, 1).flatten(-2)
    inside = (owner.amin(-1) == owner.amax(-1)) & (owner.amin(-1) > 0)
    return float(spread[inside].median())


def test_rooms_lose_their_texture():
    before, after = [], []
    for seed in range(6):
        scene = scene_of("room", seed)
        before.append(unevenness(scene))
        after.append(unevenness(blank_surfaces(scene)))
    assert np.median(after) < 0.6 * np.median(before)


@pytest.mark.parametrize("kind", ["street", "object_on_ground"])
def test_geometry_of_open_scenes_stays(kind):
    scene = scene_of(kind, 5)
    changed = blank_surfaces(scene)
    one, other = render_clip(scene, SIZE), render_clip(changed, SIZE)
    assert torch.equal(one.depth, other.depth)
    assert torch.equal(one.c2w, other.c2w)
    assert not torch.equal(one.rgb, other.rgb)


def test_is_a_function_of_the_scene_and_leaves_it_alone():
    scene = scene_of("room", 3)
    tint, c2w = scene.tint.copy(), scene.c2w.copy()
    one, other = blank_surfaces(scene), blank_surfaces(scene)
    assert np.array_equal(one.tint, other.tint)
    assert np.array_equal(one.c2w, other.c2w)
    assert np.array_equal(scene.tint, tint)
    assert np.array_equal(scene.c2w, c2w)
    rotation = one.c2w[:, :3, :3]
    np.testing.assert_allclose(
        rotation @ rotation.swapaxes(1, 2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-12
    )
    np.testing.assert_array_equal(one.c2w[:, :3, 3], scene.c2w[:, :3, 3])
