from tests.support.recordings import (
    check_partial,
    check_recognised,
    check_written,
    write_kitti_gathered,
    write_kitti_list,
    write_kitti_odometry,
    write_kitti_raw,
    write_kitti_selection,
)


def test_what_is_read_is_what_was_written_gathered(tmp_path):
    write_kitti_gathered(tmp_path)
    check_written("kitti", tmp_path, has_poses=False, intrinsics="none")


def test_the_layout_is_recognised_gathered(tmp_path):
    write_kitti_gathered(tmp_path)
    check_recognised("kitti", tmp_path)


def test_a_partial_folder_is_refused_gathered(tmp_path):
    folder = write_kitti_gathered(tmp_path)
    check_partial(
        "kitti",
        tmp_path,
        folder / "depth_selection/val_selection_cropped/image_gathered/drive_02/0000000006.png",
    )


def test_what_is_read_is_what_was_written_of_raw_drives(tmp_path):
    write_kitti_raw(tmp_path)
    check_written("kitti", tmp_path, has_poses=False)


def test_the_layout_is_recognised_of_raw_drives(tmp_path):
    write_kitti_raw(tmp_path)
    check_recognised("kitti", tmp_path)


def test_what_is_read_is_what_was_written_of_the_selection(tmp_path):
    write_kitti_selection(tmp_path)
    check_written("kitti", tmp_path, has_poses=False, intrinsics="other")


def test_the_layout_is_recognised_of_the_selection(tmp_path):
    write_kitti_selection(tmp_path)
    check_recognised("kitti", tmp_path)


def test_what_is_read_is_what_was_written_of_a_list(tmp_path):
    write_kitti_list(tmp_path)
    check_written("kitti", tmp_path, has_poses=False, intrinsics="other")


def test_the_layout_is_recognised_of_a_list(tmp_path):
    write_kitti_list(tmp_path)
    check_recognised("kitti", tmp_path)


def test_what_is_read_is_what_was_written_of_odometry(tmp_path):
    write_kitti_odometry(tmp_path)
    check_written("kitti-odometry", tmp_path, has_depth=False, offset=0.5, intrinsics="other")


def test_the_layout_is_recognised_of_odometry(tmp_path):
    write_kitti_odometry(tmp_path)
    check_recognised("kitti-odometry", tmp_path)
