import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.evaluation.metrics.poses import associate, path_degeneracy, pose_auc, pose_scores
from geo4d.formats.cameras import load_kitti_poses, load_tum, quaternions_to_poses
from geo4d.geometry.poses import rigid, similarity, so3_exp, transform_cameras
from tests.support.poses import se3_exp


def path(seed=0, frames=12, noise=0.05):
    g = torch.Generator().manual_seed(seed)
    twists = torch.randn(frames, 6, generator=g, dtype=torch.float64) * torch.tensor([1, 1, 1, 0.2, 0.2, 0.2])
    reference = se3_exp(twists)
    predicted = reference @ se3_exp(noise * torch.randn(frames, 6, generator=g, dtype=torch.float64))
    return predicted, reference


def test_similarity_of_the_whole_path_does_not_matter_under_sim3():
    predicted, reference = path()
    turn = so3_exp(torch.tensor([0.3, -1.0, 0.2]).double())
    motion = similarity(torch.tensor(2.5).double(), turn, torch.tensor([5.0, 1, 2]).double())
    moved = transform_cameras(motion, predicted)
    a, b = pose_scores(predicted, reference), pose_scores(moved, reference)
    for name in ("ate", "rpe_trans", "rpe_rot_deg", "rot_deg"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-6), name
    assert b.scale == pytest.approx(a.scale / 2.5)
    assert a.auc == pytest.approx(b.auc)


def test_perfect_cameras_score_zero_error():
    _, reference = path()
    scores = pose_scores(reference, reference)
    assert scores.ate < 1e-9
    assert scores.rpe_trans < 1e-9
    assert scores.rpe_rot_deg < 1e-6
    assert scores.auc[3] == 1
    assert scores.degenerate is None


def test_scores_equal_evo():
    evo_ape = pytest.importorskip("evo.main_ape")
    import evo.main_rpe as evo_rpe
    from evo.core.metrics import PoseRelation, Unit
    from evo.core.trajectory import PosePath3D

    predicted, reference = path(3, 40)
    for alignment in ("sim3", "se3"):
        ours = pose_scores(predicted, reference, alignment=alignment)
        truth = PosePath3D(poses_se3=list(reference.numpy()))

        def guess():
            return PosePath3D(poses_se3=[pose.copy() for pose in predicted.numpy()])

        common = {"align": True, "correct_scale": alignment == "sim3"}
        ape = evo_ape.ape(truth, guess(), PoseRelation.translation_part, **common)
        assert ours.ate == pytest.approx(ape.stats["rmse"], rel=1e-9)
        assert ours.ate_mean == pytest.approx(ape.stats["mean"], rel=1e-9)
        assert ours.ate_max == pytest.approx(ape.stats["max"], rel=1e-9)
        for relation, value in (
            (PoseRelation.translation_part, ours.rpe_trans),
            (PoseRelation.rotation_angle_deg, ours.rpe_rot_deg),
        ):
            rpe = evo_rpe.rpe(
                truth, guess(), relation, delta=1, delta_unit=Unit.frames, all_pairs=True, **common
            )
            assert value == pytest.approx(rpe.stats["rmse"], rel=1e-6)


def test_association_equals_evo():
    sync = pytest.importorskip("evo.core.sync")
    rng = np.random.default_rng(0)
    first = np.sort(rng.uniform(0, 10, 80))
    second = np.sort(rng.uniform(0, 10, 200))
    i, j = sync.matching_time_indices(first, second, 0.01)
    ours = associate(torch.from_numpy(first), torch.from_numpy(second), max_difference_s=0.01)
    assert ours[0].tolist() == list(i)
    assert ours[1].tolist() == list(j)
    swapped = associate(torch.from_numpy(second), torch.from_numpy(first), max_difference_s=0.01)
    assert swapped[1].tolist() == list(i)


def test_frames_without_pose_lower_coverage_only():
    predicted, reference = path()
    predicted[3:6] = torch.nan
    scores = pose_scores(predicted, reference)
    kept = torch.tensor([0, 1, 2, 6, 7, 8, 9, 10, 11])
    alone = pose_scores(predicted[kept], reference[kept])
    assert scores.coverage == 0.75
    assert scores.ate == pytest.approx(alone.ate)
    assert scores.num_poses == 9
    assert scores.auc[30] < alone.auc[30]


@pytest.mark.parametrize(
    ("centres", "reason"),
    [
        (torch.zeros(5, 3), "no motion"),
        (torch.tensor([[0.0, 0, 0], [1, 2, 3], [2, 4, 6], [5, 10, 15]]), "collinear path"),
        (torch.tensor([[1.0, 2, 3]]), "one frame"),
    ],
)
def test_degenerate_references_are_named_and_not_scored(centres, reason):
    assert path_degeneracy(centres) == reason
    n = len(centres)
    g = torch.Generator().manual_seed(0)
    rotation = so3_exp(0.1 * torch.randn(n, 3, generator=g))
    reference = rigid(rotation, centres)
    predicted = rigid(rotation, centres + torch.randn(n, 3, generator=g))
    scores = pose_scores(predicted, reference)
    assert scores.degenerate == reason
    assert scores.ate is None
    assert scores.rpe_trans is None
    if n > 1:
        assert scores.rpe_rot_deg == pytest.approx(0, abs=1e-3)  # needs no alignment, so it is given


def test_a_camera_that_does_not_move_is_scored_not_excused():
    _, reference = path()
    scores = pose_scores(torch.eye(4).repeat(12, 1, 1).double(), reference)
    spread = (reference[:, :3, 3] - reference[:, :3, 3].mean(0)).square().sum(-1).mean().sqrt()
    assert scores.static_prediction
    assert scores.ate == pytest.approx(float(spread))
    assert scores.degenerate is None


def test_without_any_pose_nothing_is_claimed():
    _, reference = path()
    scores = pose_scores(torch.full_like(reference, torch.nan), reference)
    assert scores.coverage == 0
    assert scores.ate is None
    assert scores.degenerate == "fewer than two predicted poses"
    assert scores.auc[30] == 0


def test_auc_counts_degrees():
    _, reference = path(frames=2)
    turned = reference.clone()
    turned[1, :3, :3] = reference[1, :3, :3] @ so3_exp(torch.tensor([math.radians(4.5), 0, 0]).double())
    # 4.5 degrees pass the thresholds 5 .. N: none of 3, one of 5, 11 of 15, 26 of 30.
    assert pose_auc(turned, reference) == pytest.approx({3: 0, 5: 1 / 5, 15: 11 / 15, 30: 26 / 30})


def _trajectories(folder: Path):
    def tensors(*arrays):
        return tuple(torch.from_numpy(np.asarray(a)) for a in arrays)

    def associated(estimate, truth):
        i, j = associate(*tensors(estimate[0], truth[0]))
        return tensors(estimate[1][i.numpy()], truth[1][j.numpy()])

    def rows_without_stamps(name):
        rows = np.loadtxt(folder / "tartanair-tools" / name)
        return quaternions_to_poses(rows[:, :3], rows[:, [6, 3, 4, 5]])

    with (folder / "evo-v102" / "V102_groundtruth.csv").open() as file:
        rows = np.array([line for line in csv.reader(file) if not line[0].startswith("#")], float)
    v102 = rows[:, 0] * 1e-9, quaternions_to_poses(rows[:, 1:4], rows[:, 4:8])
    fr1 = load_tum(folder / "evo-fr1xyz" / "freiburg1_xyz-groundtruth.txt")
    kitti = folder / "evo-kitti00"
    return {
        "evo-kitti00/KITTI_00_ORB": tensors(
            load_kitti_poses(kitti / "KITTI_00_ORB.txt"), load_kitti_poses(kitti / "KITTI_00_gt.txt")
        ),
        "evo-fr1xyz/rgbdslam": associated(
            load_tum(folder / "evo-fr1xyz" / "freiburg1_xyz-rgbdslam.txt"), fr1
        ),
        "evo-fr1xyz/ORB_kf_mono": associated(
            load_tum(folder / "evo-fr1xyz" / "freiburg1_xyz-ORB_kf_mono.txt"), fr1
        ),
        "evo-v102": associated(load_tum(folder / "evo-v102" / "V102.txt"), v102),
        "tartanair-tools": tensors(rows_without_stamps("pose_est.txt"), rows_without_stamps("pose_gt.txt")),
    }


@pytest.mark.skipif("GEO4D_SHARED" not in os.environ, reason="GEO4D_SHARED names no folder with data samples")
def test_recorded_trajectory_scores():
    folder = Path(os.environ["GEO4D_SHARED"]) / "data" / "trajectories"
    expected = json.loads((folder / "expected.json").read_text())["computed"]
    cases = _trajectories(folder)
    for name, values in expected.items():
        case, alignment = name.rsplit(" ", 1)
        scores = pose_scores(*cases[case], alignment=alignment.lower(), with_auc=False)
        assert scores.num_poses == values["n"]
        # The file holds six decimals.
        for ours, key in (
            (scores.scale, "scale"),
            (scores.ate, "ate_rmse"),
            (scores.ate_mean, "ate_mean"),
            (scores.ate_max, "ate_max"),
            (scores.rpe_trans, "rpe_trans_rmse"),
            (scores.rpe_rot_deg, "rpe_rot_rmse_deg"),
        ):
            assert ours == pytest.approx(values[key], abs=1e-6), (name, key)


def test_a_small_recorded_path():
    """Ten poses of a published keyframe path (TUM fr1/xyz, CC BY 4.0) and their scores by evo 1.38.1."""
    record = json.loads((Path(__file__).parent / "trajectory_case.json").read_text())
    predicted, reference = (
        torch.tensor(record[name], dtype=torch.float64) for name in ("predicted", "reference")
    )
    scores = pose_scores(predicted, reference)
    for name, value in record["evo_sim3"].items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-9), name
