import numpy as np
import pytest

from geo4d.synthetic.objects.builder import SceneBuilder, walk
from geo4d.synthetic.objects.motions import rotation_y, translation
from geo4d.synthetic.shapes import BOX, SPHERE
from geo4d.synthetic.textures import CATEGORIES, TextureBank


class Bank(TextureBank):
    """Always the third texture of a category whose name is kept."""

    def __init__(self) -> None:
        super().__init__(0, len(CATEGORIES))
        self.asked: list[str] = []

    def choose(self, rng, category: str, surprise: float = 0.2) -> int:
        self.asked.append(category)
        return 3


def builder(times=(0.0, 0.5, 1.0)) -> SceneBuilder:
    return SceneBuilder(np.random.RandomState(0), Bank(), np.array(times))


def test_a_shape_is_stretched_turned_and_put_into_its_place() -> None:
    scene = builder()
    scene.add(BOX, (1, 2, 3), (0.5, 1, 2), rotation=rotation_y(np.pi / 2))
    corner = scene.local[0] @ [1, 1, 1, 1]  # of the unit box
    np.testing.assert_allclose(corner[:3], [1 + 2, 2 + 1, 3 - 0.5], atol=1e-12)


def test_the_given_rotation_is_not_changed() -> None:
    rotation = np.eye(4)
    builder().add(SPHERE, (0, 0, 0), (2, 2, 2), rotation=rotation)
    np.testing.assert_array_equal(rotation, np.eye(4))


def test_groups_move_together_and_inside_each_other() -> None:
    scene = builder()
    outer = scene.moving(translation(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0.0]])))
    inner = scene.below(outer, translation([0, 5, 0]))
    assert (outer, inner) == (1, 2)
    np.testing.assert_allclose(scene.groups[inner][:, :3, 3], [[0, 5, 0], [1, 5, 0], [2, 5, 0]])
    np.testing.assert_array_equal(scene.groups[0], np.tile(np.eye(4), (3, 1, 1)))  # group 0 stands still


def test_objects_begin_where_they_are_said_to() -> None:
    scene = builder()
    for count in (2, 3):
        scene.begin_object()
        for _ in range(count):
            scene.add(BOX, (0, 0, 0), (1, 1, 1))
    assert scene.object_first == [0, 2]
    lists = (
        "local",
        "group",
        "shape",
        "size",
        "offset",
        "tint",
        "texture",
        "cutout",
        "specular",
        "emission",
        "shadow",
    )
    assert {len(getattr(scene, name)) for name in (*lists, "texture_scale")} == {5}


def test_what_is_not_given_is_drawn_and_what_is_given_is_kept() -> None:
    scene = builder()
    scene.add(BOX, (0, 0, 0), (1, 1, 1), category="wood")
    assert scene.bank.asked == ["wood"]
    assert scene.texture == [3]
    scene.add(
        BOX, (0, 0, 0), (1, 1, 1), texture=9, texture_scale=0.25, tint=np.ones(3), specular=0.7, shadow=False
    )
    assert scene.bank.asked == ["wood"]
    assert (scene.texture[1], scene.texture_scale[1], scene.specular[1], scene.shadow[1]) == (
        9,
        0.25,
        0.7,
        False,
    )
    assert all(0.5 <= value <= 1.4 for value in scene.tint[0])


def test_straight_walks_go_where_they_look() -> None:
    motion, speed = walk(builder(), np.array([1.0, 0, 2]), np.pi / 2, 3.0, 0.0)
    assert speed == 3
    np.testing.assert_allclose(motion[:, :3, 3], [[1, 0, 2], [2.5, 0, 2], [4, 0, 2]], atol=1e-12)
    forward = motion[0, :3, :3] @ [0, 0, 1]
    np.testing.assert_allclose(forward, [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("turn_rate", [0.7, -0.4])
def test_curves_have_the_speed_and_face_along_themselves(turn_rate: float) -> None:
    times = np.linspace(0, 4, 4001)
    motion, speed = walk(builder(times), np.zeros(3), 0.3, 2.0, turn_rate)
    velocity = np.diff(motion[:, :3, 3], axis=0) / np.diff(times)[:, None]
    np.testing.assert_allclose(np.linalg.norm(velocity, axis=1), speed, rtol=1e-5)
    forward = motion[:-1, :3, 2]
    assert ((velocity / speed * forward).sum(1) > 0.9999).all()


def test_nobody_leaves_a_long_clip() -> None:
    motion, _ = walk(builder(np.linspace(0, 60, 601)), np.zeros(3), 0.0, 2.0, 0.0)
    assert np.abs(motion[:, :3, 3]).max() < 5  # a circle of 2 m instead of a line of 120
