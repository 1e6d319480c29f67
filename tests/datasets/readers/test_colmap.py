from tests.support.recordings import check_partial, check_recognised, check_written, write_colmap


def test_what_is_read_is_what_was_written(tmp_path):
    write_colmap(tmp_path)
    check_written("colmap", tmp_path, has_depth=False)


def test_the_layout_is_recognised(tmp_path):
    write_colmap(tmp_path)
    check_recognised("colmap", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_colmap(tmp_path)
    check_partial("colmap", tmp_path, folder / "images/1.png")
