"""Pictures of a distorted lens: drawn here by a forward model of its own, read back as a pinhole camera sees them."""

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.images import save_image
from geo4d.geometry.distortion import Distortion
from geo4d.video.io import Video, reopen
from geo4d.video.lens import Lens


def pattern(x, y):
    """Colour in [0, 1] of a plane at z = 1; smooth, so that resampling costs little."""
    return np.stack([0.5 + 0.45 * np.sin(k * x + 0.7 * k * y + p) for k, p in ((7, 0), (9, 1), (11, 2))], -1)


def radtan(x, y, k1, k2, p1, p2):
    r2 = x * x + y * y
    f = 1 + k1 * r2 + k2 * r2 * r2
    return x * f + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * f + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


def fisheye(x, y, k1, k2, k3, k4):
    r = np.sqrt(x * x + y * y)
    t = np.arctan(r)
    f = np.where(r > 1e-9, t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / np.maximum(r, 1e-9), 1)
    return x * f, y * f


MODELS = {
    "radtan": (radtan, Distortion("radial-tangential", (-0.25, 0.05, 0.001, -0.002))),
    "fisheye": (fisheye, Distortion("fisheye", (0.05, -0.02, 0.01, -0.002))),
}


def distorted_picture(model, size, K):
    """The pattern through the lens: for every pixel, the ray that the forward model takes there (fixed-point search)."""
    forward, distortion = MODELS[model]
    fx, fy, cx, cy = K
    rows, cols = np.mgrid[: size[0], : size[1]] + 0.5
    u, v = (cols - cx) / fx, (rows - cy) / fy
    x, y = u.copy(), v.copy()
    for _ in range(200):
        a, b = forward(x, y, *distortion.coefficients)
        x, y = x + 0.5 * (u - a), y + 0.5 * (v - b)
    return (255 * pattern(x, y)).round().astype(np.uint8)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [(96, 128), (128, 96), (60, 160)])
def test_pictures_are_those_of_the_pinhole_camera(model, size):
    K = (0.8 * size[1], 0.82 * size[1], size[1] / 2 + 2, size[0] / 2 - 1.5)
    lens = Lens(MODELS[model][1], K)
    picture = distorted_picture(model, size, K)
    video = Video(picture[None], lens=lens)
    fx, fy, cx, cy = lens.pinhole(size)
    rows, cols = np.mgrid[: size[0], : size[1]] + 0.5
    expected = pattern((cols - cx) / fx, (rows - cy) / fy)
    found = video.read([0])[0].numpy()
    assert np.abs(found - expected).max() < 0.03
    assert np.abs(picture / 255 - expected).max() > 0.2  # the distortion is worth correcting
    assert any("undistorted when they are read" in note for note in video.notes)


def test_every_size_and_a_result_read_later_come_from_the_undistorted_picture(tmp_path):
    size, K = (96, 128), (100.0, 100.0, 64.0, 48.0)
    lens = Lens(MODELS["radtan"][1], K)
    save_image(tmp_path / "pictures" / "0.png", distorted_picture("radtan", size, K))
    with Video(tmp_path / "pictures", lens=lens, max_size=64) as video:
        small = video.read([0])
        again = reopen(tmp_path / "pictures", video.reading, 1)
        np.testing.assert_array_equal(again.read([0], (48, 64)), small)
        plain = Video(tmp_path / "pictures", max_size=64)
        assert np.abs((plain.read([0]) - small).numpy()).max() > 0.1
        assert plain.lens is None
        assert Lens.of(video.reading["lens"]) == lens


def test_measured_maps_move_with_the_pictures_and_are_never_mixed():
    size, K = (96, 128), (100.0, 100.0, 64.0, 48.0)
    lens = Lens(MODELS["radtan"][1], K)
    values = np.repeat(np.arange(48, dtype=np.float32)[:, None], 64, 1)  # half as large
    moved = lens.undistorted_map(values, size)
    assert set(np.unique(moved)) <= set(np.unique(values))
    picture = np.repeat(np.repeat(values, 2, 0), 2, 1)
    as_picture = lens.undistorted(np.repeat(picture[..., None], 3, -1).astype(np.uint8))[::2, ::2, 0]
    assert np.abs(moved - as_picture).max() <= 1


@pytest.mark.parametrize(
    "stated",
    [{}, {"model": "radial-tangential", "coefficients": [1], "intrinsics": [1, 1, 0, 0]}, {"model": 3}],
)
def test_a_manifest_that_states_no_lens_is_refused(stated):
    with pytest.raises(InputError, match="of a lens"):
        Lens.of(stated)
