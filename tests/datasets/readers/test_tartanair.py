from tests.support.recordings import check_partial, check_recognised, check_written, write_tartanair


def test_what_is_read_is_what_was_written(tmp_path):
    write_tartanair(tmp_path)
    check_written("tartanair", tmp_path, intrinsics="other")


def test_the_layout_is_recognised(tmp_path):
    write_tartanair(tmp_path)
    check_recognised("tartanair", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_tartanair(tmp_path)
    check_partial("tartanair", tmp_path, folder / "depth_left/000006_left_depth.npy")
