"""Against OpenCV's own projection, and a projection written out here, at several shapes of picture."""

import cv2
import numpy as np
import pytest
import torch

from geo4d.geometry.distortion import Distortion, undistorted_intrinsics, undistortion_map

BARREL = Distortion("radial-tangential", (-0.28, 0.07, 0.0009, -0.0007))  # a drone's camera
KINECT = Distortion("radial-tangential", (0.2624, -0.9531, -0.0054, 0.0026, 1.1633))
RATIONAL = Distortion("radial-tangential", (0.42, -0.33, 0.0003, 0.0001, -0.03, 0.75, -0.42, -0.06))
FISHEYE = Distortion("fisheye", (-0.03, 0.012, -0.008, 0.001))
ALL = pytest.mark.parametrize(
    "distortion", [BARREL, KINECT, RATIONAL, FISHEYE], ids=["barrel", "kinect", "rational", "fisheye"]
)
SIZES = pytest.mark.parametrize("size", [(48, 64), (64, 48), (30, 90)])


def camera(size, focal=0.75):
    long = max(size)
    values = [[focal * long, 0, size[1] / 2 + 1.5], [0, 1.02 * focal * long, size[0] / 2 - 1], [0, 0, 1]]
    return torch.tensor(values, dtype=torch.float64)


def opencv(points, K, distortion):
    """Pixels by OpenCV, whose first pixel centre is 0."""
    matrix = K.numpy().copy()
    matrix[:2, 2] -= 0.5
    k = np.array(distortion.coefficients)
    zero = np.zeros(3)
    module = cv2.fisheye if distortion.model == "fisheye" else cv2
    if distortion.model == "fisheye":
        found, _ = module.projectPoints(points[:, None], zero, zero, matrix, k)
    else:
        found, _ = module.projectPoints(points, zero, zero, matrix, k)
    return found.reshape(-1, 2) + 0.5


@ALL
@SIZES
def test_the_map_says_where_opencv_projects_each_ray(distortion, size):
    distorted = camera(size)
    pinhole = undistorted_intrinsics(distortion, distorted, size)
    way = undistortion_map(distortion, distorted, pinhole, size).reshape(-1, 2).numpy()
    rows, cols = np.mgrid[: size[0], : size[1]] + 0.5
    x = (cols - float(pinhole[0, 2])) / float(pinhole[0, 0])
    y = (rows - float(pinhole[1, 2])) / float(pinhole[1, 1])
    points = 3.0 * np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
    np.testing.assert_allclose(way, opencv(points, distorted, distortion), atol=1e-6)


@ALL
@SIZES
def test_the_whole_undistorted_picture_lies_in_the_distorted_one_and_no_longer_than_needed(distortion, size):
    distorted = camera(size)
    pinhole = undistorted_intrinsics(distortion, distorted, size)
    zoom = float(pinhole[0, 0] / distorted[0, 0])
    way = undistortion_map(distortion, distorted, pinhole, size)
    inside = (way >= 0) & (way <= torch.tensor([size[1], size[0]]))
    assert inside.all()
    torch.testing.assert_close(pinhole[:2, 2], distorted[:2, 2])
    assert float(pinhole[1, 1] / distorted[1, 1]) == pytest.approx(zoom)
    assert zoom >= 1
    if zoom > 1:  # a little less would leave it
        less = distorted.clone()
        less[[0, 1], [0, 1]] *= zoom - 0.01
        way = undistortion_map(distortion, distorted, less, size)
        assert not ((way >= 0) & (way <= torch.tensor([size[1], size[0]]))).all()


def test_a_barrel_keeps_its_focal_length_and_a_cushion_does_not():
    size = (48, 64)
    assert torch.equal(undistorted_intrinsics(BARREL, camera(size), size), camera(size))
    cushion = Distortion("radial-tangential", (0.3, 0.0, 0.0, 0.0))
    assert undistorted_intrinsics(cushion, camera(size), size)[0, 0] > 1.05 * camera(size)[0, 0]


def test_a_model_that_folds_back_is_cut_before_the_fold():
    size = (48, 64)
    folding = Distortion("radial-tangential", (-0.6, 0.0, 0.0, 0.0))  # the radius falls beyond 0.745
    wide = camera(size, focal=0.6)
    pinhole = undistorted_intrinsics(folding, wide, size)
    corner = (torch.tensor([64.0, 48.0]).double() - pinhole[:2, 2]) / pinhole[[0, 1], [0, 1]]
    assert pinhole[0, 0] > wide[0, 0]
    assert corner.norm() < 0.76
    with pytest.raises(ValueError, match="folds back even at 4 times"):
        undistorted_intrinsics(Distortion("radial-tangential", (-40.0, 0.0, 0.0, 0.0)), wide, size)


def test_no_coefficients_leave_every_ray_and_zeros_of_a_fisheye_do_not():
    xy = torch.tensor([[0.0, 0.0], [0.4, -0.3], [1.0, 2.0]], dtype=torch.float64)
    none = Distortion("radial-tangential", (0.0,) * 5)
    torch.testing.assert_close(none.distort(xy), xy)
    assert none.is_none
    even = Distortion("fisheye", (0.0,) * 4)
    assert not even.is_none
    assert float(even.distort(xy)[1].norm()) == pytest.approx(float(np.arctan(0.5)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("radtan:-0.28,0.07,0.0009,-0.0007", BARREL),
        ("plumb_bob: 0.2624, -0.9531, -5.4e-3, 2.6e-3, 1.1633", KINECT),
        ("radial-tangential:-0.28,0.07,0.0009,-0.0007", BARREL),
        ("equidistant:-0.03,0.012,-0.008,0.001", FISHEYE),
        ("Kannala_Brandt:-0.03,0.012,-0.008,0.001", FISHEYE),
    ],
)
def test_distortion_in_words(text, expected):
    assert Distortion.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-0.28,0.07,0,0", "radtan:K1"),
        ("radtan", "radtan:K1"),
        ("radtan:", "radtan:K1"),
        ("radtan:a,b", "radtan:K1"),
        ("radtan:1,2,3", "4 or 5 or 8 coefficients .* got 3"),
        ("fisheye:1,2,3,4,5", "4 coefficients .* got 5"),
        ("fov:1", "out of radial-tangential"),
        ("radtan:nan,0,0,0", "finite"),
    ],
)
def test_what_is_wrong_with_a_distortion_is_said(text, why):
    with pytest.raises(ValueError, match=why):
        Distortion.parse(text)
