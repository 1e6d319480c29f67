import numpy as np
import pytest

from geo4d.viewer.first_view import MARGIN, NEAREST, steps_back

FOV = np.deg2rad(75)  # what viser begins with


def camera(width: int, height: int, angle: float) -> np.ndarray:
    """Intrinsics [3, 3] of a camera that sees ``angle`` degrees across the longer side."""
    focal = 0.5 * max(width, height) / np.tan(np.deg2rad(angle) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


@pytest.mark.parametrize(("width", "height"), [(320, 192), (192, 320), (640, 480)])
@pytest.mark.parametrize(
    ("window", "angle"), [((390, 844), 55), ((390, 844), 90), ((1024, 800), 55), ((844, 390), 70)]
)
def test_the_corners_of_the_picture_are_in_view(width, height, window, angle) -> None:
    """A plane at twice the typical depth, seen from behind the camera, by projection."""
    intrinsics = camera(width, height, angle)
    back = steps_back(intrinsics, (height, width), fov=FOV, aspect=window[0] / window[1])
    corner = 2 * (np.linalg.inv(intrinsics) @ [width, height, 1.0])
    seen = corner[:2] / (corner[2] + back)
    room = np.tan(FOV / 2) * np.array([window[0] / window[1], 1.0])
    assert (MARGIN * seen <= room * (1 + 1e-9)).all()
    assert back >= NEAREST
    if back > NEAREST:  # and no farther than needed
        assert (MARGIN * seen / room).max() == pytest.approx(1)


def test_a_wide_window_is_as_near_as_can_be() -> None:
    assert steps_back(camera(320, 192, 55), (192, 320), fov=FOV, aspect=1.28) == NEAREST
