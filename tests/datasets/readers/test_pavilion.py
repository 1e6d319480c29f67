from tests.support.recordings import check_recognised, check_written, write_pavilion


def test_what_is_read_is_what_was_written(tmp_path):
    write_pavilion(tmp_path)
    check_written("pavilion", tmp_path, has_depth=False)


def test_the_layout_is_recognised(tmp_path):
    write_pavilion(tmp_path)
    check_recognised("pavilion", tmp_path)
