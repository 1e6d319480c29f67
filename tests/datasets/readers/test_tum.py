from tests.support.recordings import check_recognised, check_written, write_tum


def test_what_is_read_is_what_was_written(tmp_path):
    write_tum(tmp_path)
    check_written("tum", tmp_path, intrinsics="other")


def test_the_layout_is_recognised(tmp_path):
    write_tum(tmp_path)
    check_recognised("tum", tmp_path)
