from tests.support.recordings import check_recognised, check_written, write_nerfstudio


def test_what_is_read_is_what_was_written(tmp_path):
    write_nerfstudio(tmp_path)
    check_written("nerfstudio", tmp_path)


def test_the_layout_is_recognised(tmp_path):
    write_nerfstudio(tmp_path)
    check_recognised("nerfstudio", tmp_path)
