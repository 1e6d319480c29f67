import numpy as np

from tests.support.recordings import check_recognised, check_written, load_only, write_monkaa


def test_what_is_read_is_what_was_written(tmp_path):
    write_monkaa(tmp_path)
    check_written("monkaa", tmp_path, has_poses=False, intrinsics="other")


def test_the_layout_is_recognised(tmp_path):
    write_monkaa(tmp_path)
    check_recognised("monkaa", tmp_path)


def test_monkaa_sky_is_infinitely_far(tmp_path):
    write_monkaa(tmp_path)
    assert np.isposinf(load_only("monkaa", tmp_path).depth[0][0, 0])
