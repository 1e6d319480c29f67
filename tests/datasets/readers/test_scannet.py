from tests.support.recordings import check_partial, check_recognised, check_written, write_scannet


def test_what_is_read_is_what_was_written(tmp_path):
    write_scannet(tmp_path)
    check_written("scannet", tmp_path, num_posed=2, intrinsics="other", same_pictures=False)


def test_the_layout_is_recognised(tmp_path):
    write_scannet(tmp_path)
    check_recognised("scannet", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_scannet(tmp_path)
    check_partial("scannet", tmp_path, folder / "scans_test/scene0707_00/depth/1.png")
