import numpy as np
import pytest

from geo4d.synthetic.draw import draw_scene
from geo4d.synthetic.layouts.terrain import terrain_height
from geo4d.synthetic.scene import SCENE_KINDS, SceneConfig


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_a_scene_is_a_function_of_its_configuration_and_try(kind) -> None:
    config = SceneConfig(seed=4, kind=kind, num_frames=6)
    first, again, other = draw_scene(config, 0), draw_scene(config, 0), draw_scene(config, 1)
    for name in ("c2w", "focal", "l2w", "texture", "light", "tint"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.l2w.shape != other.l2w.shape or not np.array_equal(first.l2w, other.l2w)


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_arrays_agree_with_each_other(kind) -> None:
    scene = draw_scene(SceneConfig(seed=2, kind=kind, num_frames=6), 0)
    count = scene.num_primitives
    assert scene.l2w.shape == (6, count, 4, 4)
    identity = np.broadcast_to(np.eye(4), scene.l2w.shape)
    np.testing.assert_allclose(scene.w2l @ scene.l2w, identity, atol=1e-6)
    assert scene.dynamic.shape == (count,)
    still = ~scene.dynamic
    np.testing.assert_allclose(
        scene.l2w[:, still], np.broadcast_to(scene.l2w[:1, still], (6, still.sum(), 4, 4)), atol=1e-8
    )
    if scene.dynamic.any():
        assert np.abs(scene.l2w[:, scene.dynamic] - scene.l2w[:1, scene.dynamic]).max() > 1e-9
    # Primitive i belongs to the object whose first primitive is the last one not after it; objects count from 1.
    for i in (0, count // 2, count - 1):
        number = scene.object_of[i]
        assert scene.object_first[number - 1] <= i < scene.object_first[number]


def test_focal_lengths_are_those_of_real_cameras_and_change_only_in_a_zoom() -> None:
    for seed in range(6):
        plain = draw_scene(SceneConfig(seed=seed, num_frames=8), 0).focal
        assert np.ptp(plain) == 0
        assert 0.35 <= plain[0] <= 1.7  # 35 to 95 degrees across
        zoomed = draw_scene(SceneConfig(seed=seed, num_frames=8, zoom=True), 0).focal
        assert zoomed[0] == pytest.approx(plain[0])
        assert (np.diff(zoomed) >= 0).all() or (np.diff(zoomed) <= 0).all()
        assert 1.19 < max(zoomed[-1] / zoomed[0], zoomed[0] / zoomed[-1]) < 2.01


@pytest.mark.parametrize("seed", range(5))
def test_cameras_stay_above_the_hills(seed: int) -> None:
    scene = draw_scene(SceneConfig(seed=seed, kind="terrain", camera="driving", num_frames=40), 0)
    centre = scene.c2w[:, :3, 3]
    above = -centre[:, 1] - terrain_height(scene.terrain, centre[:, 0], centre[:, 2])
    assert above.min() >= 0.4 - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_the_sun_shines_from_above(seed: int) -> None:
    scene = draw_scene(SceneConfig(seed=seed, kind="street"), 0)
    assert not scene.is_lamp
    assert np.linalg.norm(scene.light) == pytest.approx(1)
    assert scene.light[1] < 0  # y points down
