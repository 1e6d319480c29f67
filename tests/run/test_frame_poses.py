import numpy as np
import pytest
import torch

from geo4d.errors import InputError
from geo4d.formats.cameras import save_kitti_poses, save_tum
from geo4d.formats.trajectories import load_trajectory
from geo4d.run.frame_poses import frame_poses
from tests.support.recordings import poses

FRAMES = np.arange(6)


def of(path, times_s=None, frames=FRAMES, total=None, video=None, offset_s=0.0):
    times = 10 + FRAMES / 20 if times_s is None else np.asarray(times_s, np.float64)
    return frame_poses(load_trajectory(path), times, frames, total or len(frames), video, offset_s)


def tum(path, stamps, moving=True):
    known = poses(len(stamps)) if moving else np.tile(np.eye(4), (len(stamps), 1, 1))
    save_tum(path, np.asarray(stamps), known)
    return path


def test_poses_are_taken_at_the_times_of_the_frames(tmp_path):
    found = of(tum(tmp_path / "p.txt", 10 + np.arange(6) / 20))
    np.testing.assert_allclose(found.c2w, poses(6), atol=1e-9)
    assert found.matched.all()
    assert "6 of 6 frames" in found.statement
    moved = of(tum(tmp_path / "p.txt", np.arange(6) / 20), offset_s=10)
    np.testing.assert_allclose(moved.c2w, poses(6), atol=1e-9)
    found.require_all()


def test_what_lies_in_a_gap_has_no_pose_and_poses_need_all(tmp_path):
    found = of(tum(tmp_path / "p.txt", [10, 10.05, 10.1, 10.25]))
    assert found.matched.tolist() == [True, True, True, False, False, True]
    assert found.source["matched_frames"] == 4
    with pytest.raises(InputError, match=r"2 of 6 have none \(3, 4\)"):
        found.require_all()


def test_times_that_do_not_meet_are_told_with_both_ranges(tmp_path):
    path = tum(tmp_path / "p.txt", 1e9 + np.arange(6) / 20)
    with pytest.raises(InputError, match=r"10\.000 to 10\.250 s.*1000000000\.000 .*--time-offset SECONDS"):
        of(path)
    few = tum(tmp_path / "few.txt", [10.0, 10.05])
    with pytest.raises(InputError, match=r"at least half of the 6 frames .*found 2"):
        of(few)


def test_a_path_in_one_place_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match="stays in one place"):
        of(tum(tmp_path / "p.txt", 10 + np.arange(6) / 20, moving=False))


def test_kitti_rows_are_frames_of_the_source_or_those_in_use(tmp_path):
    save_kitti_poses(tmp_path / "12.txt", poses(12))
    found = of(tmp_path / "12.txt", frames=2 * FRAMES, total=12)
    np.testing.assert_allclose(found.c2w, poses(12)[::2], atol=1e-9)
    save_kitti_poses(tmp_path / "6.txt", poses(6))
    np.testing.assert_allclose(of(tmp_path / "6.txt", frames=2 * FRAMES, total=12).c2w, poses(6), atol=1e-9)
    with pytest.raises(InputError, match=r"each of the 11 frames of the source .*got 12"):
        of(tmp_path / "12.txt", total=11)


def test_the_body_of_euroc_is_taken_to_the_camera_of_the_pictures(tmp_path):
    rig = tmp_path / "MH_01" / "mav0"
    ground_truth = rig / "state_groundtruth_estimate0" / "data.csv"
    ground_truth.parent.mkdir(parents=True)
    lines = [f"{10**19 // 10 + k * 50_000_000},{k},0,0,1,0,0,0" for k in range(6)]
    ground_truth.write_text("\n".join(lines) + "\n")
    for name, shift in (("cam0", 0.25), ("cam1", 0.5)):
        (rig / name / "data").mkdir(parents=True)
        (rig / name / "sensor.yaml").write_text(
            f"T_BS:\n  data: [0, -1, 0, {shift}, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\nintrinsics: [1, 1, 0, 0]\n"
        )
    times = 1e9 + FRAMES / 20
    for video, shift in ((rig / "cam1" / "data", 0.5), (rig.parent, 0.25), (None, 0.25)):
        found = of(ground_truth, times, video=video)
        np.testing.assert_allclose(found.c2w[:, 0, 3], FRAMES + shift, atol=1e-5)
        torch.testing.assert_close(found.c2w[0, :2, :2], torch.tensor([[0.0, -1], [1, 0]]).double())
        assert f"taken to cam{int(shift > 0.3)}" in found.statement
    alone = tmp_path / "elsewhere" / "data.csv"
    alone.parent.mkdir()
    alone.write_text(ground_truth.read_text())
    assert "no sensor.yaml tells" in of(alone, times).statement
