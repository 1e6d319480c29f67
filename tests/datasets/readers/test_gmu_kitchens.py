from tests.support.recordings import check_partial, check_recognised, check_written, write_gmu


def test_what_is_read_is_what_was_written(tmp_path):
    write_gmu(tmp_path)
    check_written("gmu-kitchens", tmp_path, has_poses=False, intrinsics="other", same_pictures=False)


def test_the_layout_is_recognised(tmp_path):
    write_gmu(tmp_path)
    check_recognised("gmu-kitchens", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_gmu(tmp_path)
    check_partial("gmu-kitchens", tmp_path, folder / "gmu_scene_001/Depths/depth_2.png")
