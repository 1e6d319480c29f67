import numpy as np
import pytest

from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.indoors import chair, clutter, shelf, table, toy
from geo4d.synthetic.objects.motions import translation
from geo4d.synthetic.textures import random_stream, texture_bank
from tests.support.rendered import places

PLACE = np.array([1.0, 0, 4])


def builder(seed: int) -> SceneBuilder:
    return SceneBuilder(random_stream(seed, 1), texture_bank("train"), np.linspace(0, 2, 31))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("thing", [chair, shelf])
def test_furniture_stands_where_it_is_put(thing, seed: int) -> None:
    scene = builder(seed)
    thing(scene, PLACE, 0.7)
    where = places(scene)
    assert np.ptp(where, axis=0).max() == 0
    assert np.linalg.norm((where[0] - PLACE)[:, [0, 2]], axis=1).max() < 1.5
    assert -3.0 < where[0, :, 1].min() < -0.2
    assert where[0, :, 1].max() <= 0.05


@pytest.mark.parametrize("seed", range(6))
def test_a_table_has_its_height_and_things_on_it_not_in_it(seed: int) -> None:
    scene = builder(seed)
    table(scene, PLACE, 0.3, 0.8)
    where, half = places(scene)[0], np.stack(scene.size)
    assert where[0, 1] == pytest.approx(-0.8)
    legs = slice(1, 5)
    np.testing.assert_allclose(where[legs, 1] + half[legs, 1], 0, atol=1e-9)  # on the floor
    np.testing.assert_allclose(where[legs, 1] - half[legs, 1], -0.8, atol=1e-9)  # up to the top
    np.testing.assert_allclose(where[5:, 1] + half[5:, 1], -0.82, atol=1e-9)  # things stand on it


@pytest.mark.parametrize("seed", range(8))
def test_clutter_stands_on_its_origin_with_about_its_size(seed: int) -> None:
    scene = builder(seed)
    clutter(scene, translation(PLACE), 0.6)
    where, half = places(scene)[0], np.stack(scene.size)
    assert len(scene.object_first) == 1
    assert (where[:, 1] - half[:, 1]).min() > -1.5
    assert np.abs(where - PLACE).max() < 1.2


def test_toys_move_about_their_place_and_stay_there() -> None:
    moving = 0
    for seed in range(8):
        scene = builder(seed)
        toy(scene, translation(PLACE), 0.8)
        where = places(scene)
        assert np.linalg.norm((where - PLACE)[..., [0, 2]], axis=-1).max() < 2.5
        moving += np.ptp(where, axis=0).max() > 1e-3
    assert moving >= 4
