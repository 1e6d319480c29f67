"""Trajectories of robots, written here by the rule of each format; the TUM and EuRoC ones are read by evo, too."""

import numpy as np
import pytest
from evo.tools import file_interface

from geo4d.errors import InputError
from geo4d.formats.cameras import poses_to_quaternions, save_kitti_poses, save_tum
from geo4d.formats.trajectories import load_trajectory
from tests.support.recordings import poses

N = 5
T0 = 1403636579763555584


def euroc_lines(columns: int = 17) -> str:
    rows = [
        "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], ..."
    ]
    for k, (pose, q) in enumerate(zip(poses(N), poses_to_quaternions(poses(N)), strict=True)):
        values = [*pose[:3, 3], *q, *np.zeros(columns - 8)]
        rows.append(f"{T0 + k * 5_000_000}," + ",".join(f"{v:.9f}" for v in values))
    return "\n".join(rows) + "\n"


def test_a_tum_file(tmp_path):
    save_tum(tmp_path / "path.txt", np.arange(N) / 7 + 1e9, poses(N), ["a comment"])
    found = load_trajectory(tmp_path / "path.txt")
    assert found.layout == "TUM"
    evo = file_interface.read_tum_trajectory_file(str(tmp_path / "path.txt"))
    np.testing.assert_allclose(found.poses, np.array(evo.poses_se3), atol=1e-9)
    np.testing.assert_array_equal(found.times_s, evo.timestamps)


def test_kitti_poses_have_no_times(tmp_path):
    save_kitti_poses(tmp_path / "00.txt", poses(N))
    found = load_trajectory(tmp_path / "00.txt")
    assert (found.layout, found.times_s) == ("KITTI", None)
    np.testing.assert_allclose(found.poses, poses(N), atol=1e-12)


@pytest.mark.parametrize("columns", [8, 17])
def test_a_euroc_csv_has_w_first_and_nanoseconds(tmp_path, columns):
    (tmp_path / "data.csv").write_text(euroc_lines(columns))
    found = load_trajectory(tmp_path / "data.csv")
    assert found.layout == "EuRoC"
    np.testing.assert_allclose(found.poses, poses(N), atol=1e-7)
    np.testing.assert_allclose(np.diff(found.times_s), 0.005, atol=1e-6)
    if columns == 17:
        evo = file_interface.read_euroc_csv_trajectory(str(tmp_path / "data.csv"))
        np.testing.assert_allclose(found.poses, np.array(evo.poses_se3), atol=1e-7)
        np.testing.assert_allclose(found.times_s, evo.timestamps, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no rows"),
        ("# nothing\n", "no rows"),
        ("0 1 2 3\n", "got 4 in its first row"),
        ("a b c\n", "expected numbers"),
        ("0 0 0 0 0 0 0 1\n1 0 0 0 0 0 0\n", "expected 8 numbers in line 2"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "increasing times"),
        ("0 0 0 nan 0 0 0 1\n", "finite"),
        ("0 0 0 0 0 0 0 0\n", "length 0"),
        (f"{T0} 0 0 0 0 0 0 1\n", "nanoseconds"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0\n", "rotations"),
        ("2 0 0 0 0 2 0 0 0 0 2 0\n", "rotations"),
        (f"{T0},0,0,0,1,0,0,0\n{T0 + 5},0,0,0,1,0\n", "8 or more numbers in line 2"),
        (f"{T0},0,0,0,1,0,0,0\n1e18,0,0,0,1,0,0,0\n", "whole nanoseconds"),
        (f"{T0},0,0,0,0,0,0,0\n", "length 0"),
        (f"{'9' * 400},0,0,0,1,0,0,0\n", "whole nanoseconds"),
        ("nan " * 12 + "\n", "finite"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, why):
    (tmp_path / "path.txt").write_text(text)
    with pytest.raises(InputError, match=why):
        load_trajectory(tmp_path / "path.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="expected a trajectory"):
        load_trajectory(tmp_path / "none.txt")
