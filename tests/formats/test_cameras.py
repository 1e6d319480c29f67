import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.cameras import (
    load_cam,
    load_kitti_poses,
    load_tum,
    poses_to_quaternions,
    quaternions_to_poses,
    save_kitti_poses,
    save_tum,
)
from tests.support.writers import save_cam


def test_tum_round_trip_and_an_independent_reader(tmp_path, c2w) -> None:
    from evo.tools import file_interface

    times = np.array([0.0, 0.04, 0.1, 0.2, 1e9 + 0.125])
    save_tum(tmp_path / "t.txt", times, c2w, ["a comment"])
    read_times, poses = load_tum(tmp_path / "t.txt")
    np.testing.assert_array_equal(read_times, times)
    np.testing.assert_allclose(poses, c2w, atol=1e-12)
    theirs = file_interface.read_tum_trajectory_file(str(tmp_path / "t.txt"))
    np.testing.assert_allclose(np.stack(theirs.poses_se3), c2w, atol=1e-9)


def test_kitti_round_trip_and_an_independent_reader(tmp_path, c2w) -> None:
    from evo.tools import file_interface

    save_kitti_poses(tmp_path / "k.txt", c2w)
    np.testing.assert_allclose(load_kitti_poses(tmp_path / "k.txt"), c2w, atol=1e-15)
    theirs = file_interface.read_kitti_poses_file(str(tmp_path / "k.txt"))
    np.testing.assert_allclose(np.stack(theirs.poses_se3), c2w, atol=1e-12)


def test_quaternions_round_trip(c2w) -> None:
    np.testing.assert_allclose(
        quaternions_to_poses(c2w[:, :3, 3], poses_to_quaternions(c2w)), c2w, atol=1e-12
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("1 2 3", "8 numbers"),
        ("0 a 0 0 0 0 0 1", "expected numbers"),
        ("0 0 0 0 0 0 0 0", "length 0"),
    ],
)
def test_broken_tum_files(tmp_path, text, message) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_tum(tmp_path / "t.txt")


def test_cam_round_trip(tmp_path, c2w, intrinsics) -> None:
    save_cam(tmp_path / "a.cam", intrinsics, c2w[0])
    read_intrinsics, pose = load_cam(tmp_path / "a.cam")
    np.testing.assert_array_equal(read_intrinsics, intrinsics)
    np.testing.assert_allclose(pose, c2w[0], atol=1e-12)
    (tmp_path / "b.cam").write_bytes(b"short")
    with pytest.raises(InputError, match="172 bytes"):
        load_cam(tmp_path / "b.cam")
