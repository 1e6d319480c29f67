import numpy as np
import pytest

from geo4d.synthetic.layouts.terrain import terrain_height
from tests.support.rendered import laid_out, places


def test_height_is_a_sum_of_waves() -> None:
    waves = np.array([[2.0, 0.5, 0.3, 0.1], [0.0, 1.0, 1.5, -0.4]])
    x, z = 1.7, -2.2
    expected = 0.3 * np.sin(2 * x + 0.5 * z + 0.1) + 1.5 * np.sin(z - 0.4)
    assert terrain_height(waves, x, z) == pytest.approx(expected, rel=1e-12)


def test_heights_of_many_places_at_once() -> None:
    waves = np.random.default_rng(0).normal(size=(5, 4))
    x, z = np.random.default_rng(1).normal(size=(2, 3, 4))
    found = terrain_height(waves, x, z)
    assert found.shape == (3, 4)
    assert found[2, 1] == pytest.approx(terrain_height(waves, x[2, 1], z[2, 1]))
    assert terrain_height(np.zeros((0, 4)), 1.0, 2.0) == 0


@pytest.mark.parametrize("seed", range(6))
def test_hills_are_gentle_and_the_camera_stands_above_them(seed: int) -> None:
    builder, plan, _ = laid_out("terrain", seed)
    waves = builder.terrain
    steepness = np.abs(waves[:, 2]) * np.hypot(waves[:, 0], waves[:, 1])
    assert steepness.max() < 2 * np.pi * 0.0351
    eye = -plan.position[1] - terrain_height(waves, plan.position[0], plan.position[2])
    assert 0.6 <= eye <= 4.0
    ground = terrain_height(waves, plan.target[:, 0], plan.target[:, 2])
    np.testing.assert_allclose(-plan.target[:, 1], ground, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_walkers_follow_the_ground(seed: int) -> None:
    builder, _, _ = laid_out("terrain", seed)
    moving = [g for g, motion in enumerate(builder.groups) if np.abs(motion - motion[0]).max() > 1e-9]
    where = places(builder)
    for g in moving:
        part = where[:, np.array(builder.group) == g]
        if part.shape[1] == 0:
            continue
        above = -part[..., 1] - terrain_height(builder.terrain, part[..., 0], part[..., 2])
        assert above.min() > -1.0
        assert above.max() < 3.0
