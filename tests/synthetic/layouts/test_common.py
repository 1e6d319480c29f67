import numpy as np
import pytest

from geo4d.synthetic.layouts.common import across, backdrop, ground, moved_to, someone
from geo4d.synthetic.objects.builder import SceneBuilder
from geo4d.synthetic.textures import random_stream, texture_bank
from tests.support.rendered import places


def builder(seed: int = 0, seconds: float = 2.0) -> SceneBuilder:
    return SceneBuilder(random_stream(seed, 1), texture_bank("train"), np.linspace(0, seconds, 25))


def test_the_ground_is_a_plane_at_its_height() -> None:
    scene = builder()
    ground(scene, 1.5)
    top = scene.local[0] @ [0, -1, 0, 1]
    assert top[1] == pytest.approx(1.5)
    assert scene.object_first == [0]
    assert not scene.shadow[0]


@pytest.mark.parametrize("seed", range(5))
def test_hills_are_far_from_the_middle(seed: int) -> None:
    scene = builder(seed)
    centre = np.array([3.0, 0, 7])
    backdrop(scene, centre)
    for place in places(scene)[0] if scene.shape else []:
        assert 59 < np.linalg.norm((place - centre)[[0, 2]]) < 221


def test_who_is_centred_is_at_the_spot_in_the_middle_of_the_clip() -> None:
    spot = np.array([1.0, 0, 5])
    start = moved_to(builder(), spot, 0.4, 2.0, 0.3, False)
    centred = moved_to(builder(), spot, 0.4, 2.0, 0.3, True)
    np.testing.assert_allclose(start[0, :3, 3], spot, atol=1e-12)
    np.testing.assert_allclose(centred[12, :3, 3], spot, atol=1e-12)
    np.testing.assert_allclose(
        np.diff(start[:, :3, 3], axis=0), np.diff(centred[:, :3, 3], axis=0), atol=1e-12
    )
    long = moved_to(builder(seconds=20.0), spot, 0.4, 2.0, 0.3, True)
    np.testing.assert_allclose(long[:, :3, 3].mean(0), spot, atol=1e-9)


def test_people_are_as_tall_as_people_and_stand_on_the_ground() -> None:
    heights = []
    for seed in range(15):
        scene = builder(seed)
        height, motion = someone(scene, np.array([0.0, 0, 4]), 0.0, speed=0.0)
        heights.append(height)
        np.testing.assert_allclose(motion[:, :3, 3], np.tile([0, 0, 4], (25, 1)), atol=1e-9)
        where = places(scene)
        assert height - 0.3 < -where[..., 1].min() < height + 0.6  # a hand may be raised
        assert where[..., 1].max() < 0.3
    assert min(heights) >= 0.9
    assert max(heights) <= 1.95
    assert np.median(heights) > 1.5


def test_headings_mostly_cross_the_view() -> None:
    rng = random_stream(0, 2)
    sideways = np.abs(np.sin([across(rng) for _ in range(400)]))
    assert np.mean(sideways > 0.7) > 0.6
