from tests.support.plane_layouts import write_spring
from tests.support.planes import check_lost, check_plane, check_recognised, check_truncated


def test_what_is_read_is_the_plane(tmp_path):
    check_plane("spring", tmp_path, write_spring(tmp_path), marks_sky=True, tolerance=1e-5, step_s=1 / 24)


def test_the_layout_is_told_from_all_others(tmp_path):
    write_spring(tmp_path)
    check_recognised("spring", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_spring(tmp_path)
    check_lost("spring", tmp_path, "train/0001/maps/skymap_left/*", "sky")


def test_a_truncated_file_is_named(tmp_path):
    write_spring(tmp_path)
    check_truncated("spring", tmp_path, "**/*.dsp5")
