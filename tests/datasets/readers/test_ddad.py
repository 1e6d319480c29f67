import numpy as np

from tests.support.recordings import H, W, check_partial, check_recognised, check_written, write_ddad


def test_what_is_read_is_what_was_written(tmp_path):
    write_ddad(tmp_path)
    check_written("ddad", tmp_path)


def test_the_layout_is_recognised(tmp_path):
    write_ddad(tmp_path)
    check_recognised("ddad", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_ddad(tmp_path)
    check_partial("ddad", tmp_path, folder / "000150/point_cloud/LIDAR/1.npz")


def test_projected_lidar_keeps_the_nearest():
    from geo4d.datasets.readers.ddad import project_depth

    matrix = np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]])
    points = np.array([[0.0, 0, 5], [0, 0, 2], [0, 0, 9], [0, 0, -3], [100, 0, 1]])
    found = project_depth(points, matrix, (H, W))
    assert found[3, 4] == 2
    assert np.isfinite(found).sum() == 1
