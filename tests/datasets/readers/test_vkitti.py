from tests.support.plane_layouts import write_vkitti, write_vkitti2
from tests.support.planes import check_lost, check_plane, check_recognised


def test_what_is_read_is_the_plane(tmp_path):
    check_plane("vkitti", tmp_path, write_vkitti(tmp_path), marks_sky=True, tolerance=2e-3, step_s=0.1)


def test_the_layout_is_told_from_all_others(tmp_path):
    write_vkitti(tmp_path)
    check_recognised("vkitti", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_vkitti(tmp_path)
    check_lost("vkitti", tmp_path, "vkitti_1.3.1_extrinsicsgt/*", "extrinsicsgt")


def test_what_is_read_is_the_plane_2(tmp_path):
    check_plane("vkitti2", tmp_path, write_vkitti2(tmp_path), marks_sky=True, tolerance=2e-3, step_s=0.1)


def test_the_layout_is_told_from_all_others_2(tmp_path):
    write_vkitti2(tmp_path)
    check_recognised("vkitti2", tmp_path)


def test_half_a_download_says_what_is_missing_2(tmp_path):
    write_vkitti2(tmp_path)
    check_lost("vkitti2", tmp_path, "Scene01/clone/extrinsic.txt", "extrinsic.txt")
