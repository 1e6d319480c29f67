import numpy as np
import pytest

from geo4d.synthetic.objects.builder import SceneBuilder, walk
from geo4d.synthetic.objects.living import animal, person
from geo4d.synthetic.textures import random_stream, texture_bank
from tests.support.rendered import places

SPOT = np.array([0.0, 0, 5])


def builder(seed: int) -> SceneBuilder:
    return SceneBuilder(random_stream(seed, 1), texture_bank("train"), np.linspace(0, 2, 49))


def walked(seed: int, speed: float):
    scene = builder(seed)
    motion, _ = walk(scene, SPOT, 0.4, speed, 0.0)
    return scene, motion


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speed", [0.0, 1.4])
def test_a_person_has_its_height_and_goes_along_its_path(seed: int, speed: float) -> None:
    scene, motion = walked(seed, speed)
    person(scene, motion, speed, 1.8)
    where = places(scene)
    assert 1.5 < -where[..., 1].min() < 2.4
    assert where[..., 1].max() < 0.25
    relative = where - motion[:, None, :3, 3]
    assert np.abs(relative[..., [0, 2]]).max() < 1.3  # no limb is left behind
    middle = relative.mean(1)
    assert np.ptp(middle[:, 1]) < 0.15


def test_legs_swing_against_each_other_and_only_when_walking() -> None:
    scene, motion = walked(1, 1.5)
    person(scene, motion, 1.5, 1.8)
    where = (
        np.linalg.inv(motion)[:, None]
        @ np.concatenate([places(scene), np.ones((49, len(scene.shape), 1))], -1)[..., None]
    )
    low = where[..., 2, 0][:, where[0, :, 1, 0] > -0.35]  # feet and shins, forward in the walker's own frame
    swing = np.ptp(low, axis=0)
    assert swing.max() > 0.2
    first = low[:, swing.argsort()[-1]]
    correlations = [np.corrcoef(first, low[:, k])[0, 1] for k in range(low.shape[1])]
    assert min(correlations) < -0.5
    still, path = walked(1, 0.0)
    person(still, path, 0.0, 1.8)
    assert np.ptp(places(still)[:, places(still)[0, :, 1] > -0.3], axis=0).max() < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_animals_have_four_legs_on_the_ground_and_their_height(seed: int) -> None:
    scene, motion = walked(seed, 1.0)
    animal(scene, motion, 1.0, 0.8)
    where = places(scene)
    assert 0.5 < -where[..., 1].min() < 2.0
    assert where[..., 1].max() < 0.2
    relative = where - motion[:, None, :3, 3]
    assert np.abs(relative[..., [0, 2]]).max() < 2.0


def test_gestures_lift_the_arms() -> None:
    highest = []
    for gesture in (0.0, 0.8):
        tops = []
        for seed in range(6):
            scene, motion = walked(seed, 0.0)
            person(scene, motion, 0.0, 1.8, gesture)
            tops.append(np.ptp(places(scene), axis=0).max())
        highest.append(np.mean(tops))
    assert highest[1] > highest[0] + 0.1
