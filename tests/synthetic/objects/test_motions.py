import numpy as np
import pytest

from geo4d.synthetic.objects.motions import rotation_x, rotation_y, rotation_z, scaling, translation


@pytest.mark.parametrize(
    ("turn", "start", "end"),
    [
        (rotation_x, [0, 0, 1], [0, -1, 0]),
        (rotation_y, [0, 0, 1], [1, 0, 0]),
        (rotation_z, [1, 0, 0], [0, 1, 0]),
    ],
)
def test_a_quarter_turn_goes_where_it_is_said_to(turn, start, end) -> None:
    np.testing.assert_allclose(turn(np.pi / 2)[:3, :3] @ start, end, atol=1e-12)


@pytest.mark.parametrize("turn", [rotation_x, rotation_y, rotation_z])
def test_turns_are_rotations_and_add(turn) -> None:
    angles = np.array([[0.0, 0.3, -2.0], [4.0, 1e-9, np.pi]])
    matrices = turn(angles)
    assert matrices.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(
        matrices @ matrices.swapaxes(-1, -2), np.broadcast_to(np.eye(4), (2, 3, 4, 4)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    np.testing.assert_allclose(turn(0.3) @ turn(0.5), turn(0.8), atol=1e-12)


def test_shifts_and_stretches() -> None:
    point = np.array([1.0, 2, 3, 1])
    np.testing.assert_array_equal(translation([10, 20, 30]) @ point, [11, 22, 33, 1])
    np.testing.assert_array_equal(scaling(np.array([2.0, 3, 4])) @ point, [2, 6, 12, 1])
    np.testing.assert_array_equal(translation(np.ones((5, 2, 3)))[4, 1, :3, 3], [1, 1, 1])
    assert scaling(np.ones((7, 3))).shape == (7, 4, 4)
