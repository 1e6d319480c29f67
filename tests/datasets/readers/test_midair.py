from tests.support.plane_layouts import write_midair
from tests.support.planes import check_lost, check_plane, check_recognised, check_truncated


def test_what_is_read_is_the_plane(tmp_path):
    check_plane("midair", tmp_path, write_midair(tmp_path), marks_sky=True, tolerance=1e-3, step_s=1 / 25)


def test_the_layout_is_told_from_all_others(tmp_path):
    write_midair(tmp_path)
    check_recognised("midair", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_midair(tmp_path)
    check_lost("midair", tmp_path, "Kite_training/sunny/sensor_records.hdf5", "sensor_records.hdf5")


def test_a_truncated_file_is_named(tmp_path):
    write_midair(tmp_path)
    check_truncated("midair", tmp_path, "**/*.hdf5")
