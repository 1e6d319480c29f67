import numpy as np
import pytest

from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.objects.outdoors import car, house, pole, tree
from geo4d.synthetic.textures import random_stream, texture_bank
from tests.support.rendered import places

PLACE = np.array([3.0, 0, 8])


def builder(seed: int) -> SceneBuilder:
    return SceneBuilder(random_stream(seed, 1), texture_bank("train"), np.linspace(0, 1, 21))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("thing", [tree, pole])
def test_what_grows_or_stands_is_as_high_as_asked_and_rooted_in_its_place(thing, seed: int) -> None:
    scene = builder(seed)
    thing(scene, PLACE, 4.0)
    where = places(scene)[0]
    assert len(scene.object_first) == 1
    assert where[:, 1].min() > -6.0
    assert where[:, 1].min() < -1.0  # something is up there
    assert where[:, 1].max() < 0.6
    assert np.linalg.norm((where - PLACE)[:, [0, 2]], axis=1).max() < 4.0


@pytest.mark.parametrize("seed", range(4))
def test_a_house_stands_on_the_ground_and_fills_its_block(seed: int) -> None:
    scene = builder(seed)
    half = np.array([2.0, 3.0, 4.0])
    house(scene, PLACE, half, 0.0)
    block = scene.local[0]
    top, bottom = block @ [0, -1, 0, 1], block @ [0, 1, 0, 1]
    assert bottom[1] == pytest.approx(0, abs=0.5)
    assert top[1] == pytest.approx(-6.0, abs=1.0)
    np.testing.assert_allclose(scene.size[0], half, rtol=0.3)


@pytest.mark.parametrize("seed", range(4))
def test_wheels_roll_as_fast_as_the_car_drives(seed: int) -> None:
    speed = 3.0
    scene = builder(seed)
    forward = np.stack([np.zeros(21), np.zeros(21), speed * scene.times_s], 1)
    motion = translation(PLACE + forward) @ rotation_y(0.0)
    car(scene, motion, speed)
    where = places(scene)
    moved = where[-1] - where[0]
    np.testing.assert_allclose(moved[:, 2], speed * scene.times_s[-1], atol=1.0)
    body = np.array(scene.group) == scene.group[0]
    np.testing.assert_allclose(moved[body, 2], speed, atol=1e-9)
    wheels = sorted(set(scene.group) - {scene.group[0]})
    assert len(wheels) >= 2
    for group in wheels:
        turn = scene.groups[group][:, :3, :3]
        between = turn[:-1].swapaxes(1, 2) @ turn[1:]
        angle = np.arccos(np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1))
        radius = speed * np.diff(scene.times_s) / np.maximum(angle, 1e-9)
        assert 0.1 < np.median(radius) < 1.0
        np.testing.assert_allclose(angle, angle[0], rtol=1e-6)


def test_a_parked_car_stands_still() -> None:
    scene = builder(0)
    car(scene, translation(PLACE), 0.0)
    assert np.ptp(places(scene), axis=0).max() < 1e-9
