from tests.support.recordings import check_partial, check_recognised, check_written, write_hololens


def test_what_is_read_is_what_was_written(tmp_path):
    write_hololens(tmp_path)
    check_written("hololens", tmp_path)


def test_the_layout_is_recognised(tmp_path):
    write_hololens(tmp_path)
    check_recognised("hololens", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_hololens(tmp_path)
    check_partial("hololens", tmp_path, folder / "depth/00005.png")
