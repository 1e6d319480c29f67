from tests.support.plane_layouts import write_gta_sfm
from tests.support.planes import check_plane, check_recognised, check_truncated


def test_what_is_read_is_the_plane(tmp_path):
    check_plane("gta-sfm", tmp_path, write_gta_sfm(tmp_path), marks_sky=False, tolerance=1e-5, step_s=1 / 24)


def test_the_layout_is_told_from_all_others(tmp_path):
    write_gta_sfm(tmp_path)
    check_recognised("gta-sfm", tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    write_gta_sfm(tmp_path)
    check_truncated("gta-sfm", tmp_path, "**/*.h5")
