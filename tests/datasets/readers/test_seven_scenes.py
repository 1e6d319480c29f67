from tests.support.recordings import check_recognised, check_written, write_seven_scenes


def test_what_is_read_is_what_was_written(tmp_path):
    write_seven_scenes(tmp_path)
    check_written("7scenes", tmp_path, intrinsics="none")


def test_the_layout_is_recognised(tmp_path):
    write_seven_scenes(tmp_path)
    check_recognised("7scenes", tmp_path)
