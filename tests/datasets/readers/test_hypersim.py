import numpy as np

from tests.support.plane_layouts import save_hdf5, write_hypersim
from tests.support.planes import (
    H,
    W,
    check_lost,
    check_plane,
    check_recognised,
    check_truncated,
    load_all,
    turned,
)


def test_what_is_read_is_the_plane(tmp_path):
    check_plane("hypersim", tmp_path, write_hypersim(tmp_path), marks_sky=True, tolerance=1e-5, step_s=1.0)


def test_the_layout_is_told_from_all_others(tmp_path):
    write_hypersim(tmp_path)
    check_recognised("hypersim", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_hypersim(tmp_path)
    check_lost("hypersim", tmp_path, "metadata_camera_parameters.csv", "metadata_camera_parameters.csv")


def test_a_truncated_file_is_named(tmp_path):
    write_hypersim(tmp_path)
    check_truncated("hypersim", tmp_path, "**/*depth_meters.hdf5")


def test_a_tilted_lens_is_a_turned_pinhole_camera(tmp_path):
    known = write_hypersim(tmp_path, tilt=turned(0, 0.05) @ turned(1, -0.08))
    sequence = load_all("hypersim", tmp_path)[0]
    np.testing.assert_allclose(sequence.intrinsics[1], known.intrinsics, atol=1e-6)
    np.testing.assert_allclose(sequence.c2w, known.c2w, atol=1e-6)


def test_hypersim_pictures_are_tone_mapped(tmp_path):
    write_hypersim(tmp_path)
    linear = np.full((H, W, 3), 0.25)
    linear[0, 0] = 1e3  # a lamp, too small to move the exposure
    for path in tmp_path.rglob("*.color.hdf5"):
        path.unlink()
        save_hdf5(path, dataset=linear)
    picture = load_all("hypersim", tmp_path)[0].rgb[1]
    np.testing.assert_allclose(picture[1:], 0.8, atol=1e-3)
    assert picture[0, 0].tolist() == [1, 1, 1]
