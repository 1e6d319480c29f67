"""Metrics: plain references, coverage rules, invariances, degenerate paths, and the evo tool as an independent oracle."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.metrics.consistency import (
    depth_change_sums,
    log_error_change,
    static_correspondences,
    track_depth_change_sums,
    track_pixels,
    translation_parallax,
    unmoved_change,
)
from geo4d.evaluation.metrics.depth import depth_scores, depth_sums
from geo4d.evaluation.metrics.intrinsics import intrinsics_scores
from geo4d.evaluation.metrics.points import point_scores, point_sums
from geo4d.evaluation.metrics.poses import associate, path_degeneracy, pose_auc, pose_scores
from geo4d.formats.cameras import load_kitti_poses, load_tum, quaternions_to_poses
from geo4d.geometry.poses import rigid, similarity, so3_exp, transform_cameras
from tests.support.poses import se3_exp


def maps(seed=0, frames=3):
    g = torch.Generator().manual_seed(seed)
    reference = torch.rand(frames, 6, 8, generator=g) * 5 + 1
    predicted = reference * (1 + 0.3 * torch.randn(frames, 6, 8, generator=g)).clamp(min=0.1)
    return predicted, reference, torch.rand(frames, 6, 8, generator=g) > 0.3


def path(seed=0, frames=12, noise=0.05):
    g = torch.Generator().manual_seed(seed)
    twists = torch.randn(frames, 6, generator=g, dtype=torch.float64) * torch.tensor([1, 1, 1, 0.2, 0.2, 0.2])
    reference = se3_exp(twists)
    predicted = reference @ se3_exp(noise * torch.randn(frames, 6, generator=g, dtype=torch.float64))
    return predicted, reference


# Depth ---------------------------------------------------------------------------------------------------------------


def test_depth_metrics_equal_their_formulas():
    p, r, valid = maps()
    scores = depth_scores(depth_sums(p, r, valid))
    a, b = p[valid].double(), r[valid].double()
    ratio = torch.maximum(a / b, b / a)
    log = a.log() - b.log()
    assert scores.abs_rel == pytest.approx(float(((a - b).abs() / b).mean()))
    assert scores.sq_rel == pytest.approx(float(((a - b) ** 2 / b).mean()))
    assert scores.rmse == pytest.approx(float(((a - b) ** 2).mean().sqrt()))
    assert scores.rmse_log == pytest.approx(float((log**2).mean().sqrt()))
    assert scores.silog == pytest.approx(100 * float((log**2).mean() - log.mean() ** 2) ** 0.5)
    assert scores.log10 == pytest.approx(float(log.abs().mean()) / math.log(10))
    for k, value in enumerate((scores.delta_125, scores.delta_125_2, scores.delta_125_3), 1):
        assert value == pytest.approx(float((ratio < 1.25**k).double().mean()))
    assert scores.coverage == 1
    assert scores.num_pixels == int(valid.sum())


def test_frame_average_is_the_mean_of_frame_scores():
    p, r, valid = maps(1)
    together = depth_scores(depth_sums(p, r, valid), average="frame")
    alone = [depth_scores(depth_sums(p[t : t + 1], r[t : t + 1], valid[t : t + 1])) for t in range(3)]
    for name in ("abs_rel", "sq_rel", "rmse", "rmse_log", "irmse", "delta_125"):
        assert getattr(together, name) == pytest.approx(np.mean([getattr(s, name) for s in alone])), name


def test_pixels_without_prediction_are_wrong_in_delta_and_absent_from_errors():
    p, r, valid = maps(2)
    whole = depth_scores(depth_sums(p, r, valid))
    gone = valid & (torch.arange(8) < 4)
    holes = torch.where(gone, torch.nan, p)
    part = depth_scores(depth_sums(holes, r, valid))
    kept = depth_scores(depth_sums(p, r, valid & ~gone))
    share = float((valid & ~gone).sum() / valid.sum())
    assert part.coverage == pytest.approx(share)
    assert part.abs_rel == pytest.approx(kept.abs_rel)
    assert part.delta_125 == pytest.approx(kept.delta_125 * share)
    assert part.delta_125 < whole.delta_125


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_every_kind_of_missing_prediction_counts_as_uncovered(value):
    _, r, valid = maps()
    scores = depth_scores(depth_sums(torch.full_like(r, value), r, valid))
    assert scores.coverage == 0
    assert scores.delta_125 == 0
    assert scores.abs_rel is None


def test_empty_frames_are_counted_and_an_empty_sequence_is_degenerate():
    p, r, valid = maps()
    valid[1] = False
    scores = depth_scores(depth_sums(p, r, valid), average="frame")
    assert (scores.num_frames, scores.num_empty_frames) == (2, 1)
    assert math.isfinite(scores.abs_rel)
    with pytest.raises(DegenerateInput, match="no valid"):
        depth_scores(depth_sums(p, r, torch.zeros_like(valid)))


def test_point_metrics_and_their_coverage():
    _, r, valid = maps()
    reference = torch.stack([r, -r, r], -1)
    predicted = reference * 1.1
    scores = point_scores(point_sums(predicted, reference, valid))
    assert scores.point_rel == pytest.approx(0.1, rel=1e-5)
    assert scores.point_delta == 1
    predicted[0] = torch.nan
    third = point_scores(point_sums(predicted, reference, valid))
    assert third.point_delta == pytest.approx(2 / 3)
    assert third.point_rel == pytest.approx(0.1, rel=1e-5)
    with pytest.raises(DegenerateInput):
        point_scores(point_sums(predicted, reference, torch.zeros_like(valid)))


# Cameras -------------------------------------------------------------------------------------------------------------


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


def intrinsics(fx, fy, cx, cy):
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def test_intrinsics_errors_are_in_pixels_of_the_reference():
    reference = intrinsics(100, 100, 40, 30).repeat(4, 1, 1)
    # Maps half as wide and a third as high: true intrinsics are 50, 33.3, 20, 10 there.
    predicted = intrinsics(60, 100 / 3, 21, 10).repeat(4, 1, 1)
    predicted[3] = torch.nan
    scores = intrinsics_scores(predicted, (20, 40), reference, (60, 80))
    assert scores.fx_rel == pytest.approx(0.2)
    assert scores.fy_rel == pytest.approx(0)
    assert scores.fy_fx_rel == pytest.approx(1 / 6)
    assert scores.cx_rel == pytest.approx(2 / 80)
    assert scores.cy_rel == pytest.approx(0)
    assert scores.coverage == 0.75


def test_a_vertical_focal_length_taken_for_the_horizontal_one_is_seen():
    """96 x 160 maps of a 16:9 picture have pixels that are not square; calling them square is off by 1/15 in fy."""
    reference = intrinsics(1000, 1000, 960, 540)[None]
    square = intrinsics(1000 / 12, 1000 / 12, 80, 48)[None]
    scores = intrinsics_scores(square, (96, 160), reference, (1080, 1920))
    assert scores.fx_rel == pytest.approx(0)
    assert scores.fy_rel == pytest.approx(1 / 16)
    assert scores.fy_fx_rel == pytest.approx(1 / 16)


def test_parallax_is_what_translation_adds():
    K = intrinsics(50, 50, 32, 24).repeat(3, 1, 1)
    c2w = torch.eye(4).repeat(3, 1, 1).double()
    depth = torch.full((48, 64), 5.0)
    c2w[1, :3, :3] = so3_exp(torch.tensor([0, 0.2, 0]).double())  # turning alone is none
    assert translation_parallax(depth, K, c2w, 0) == pytest.approx(0, abs=1e-9)
    c2w[2, 0, 3] = 0.7  # 0.7 m sideways at 5 m: 50 * 0.7 / 5
    assert translation_parallax(depth, K, c2w, 0) == pytest.approx(7)
    assert translation_parallax(torch.full((48, 64), torch.inf), K, c2w, 0) == 0


def test_error_changes_are_read_at_the_same_pixels():
    """A slanted plane seen from a moving camera: the rounding of tracks must not look like flicker."""
    row = torch.arange(1, 25).double()[:, None].expand(24, 32)
    reference = torch.stack([1 / row, 1 / (row + 0.4)])  # as if the picture slid by less than a pixel
    source = torch.tensor([[3, 4], [9, 9], [20, 30]])
    assert log_error_change(3 * reference, reference, source, source).abs().max() < 1e-12
    pulsing = torch.stack([reference[0], reference[1] * 1.02])
    assert torch.allclose(
        log_error_change(pulsing, reference, source, source), torch.tensor(1.02).double().log()
    )
    pulsing[1, 9, 9] = torch.nan
    assert len(log_error_change(pulsing, reference, source, source)) == 2


def test_tracks_become_pixels_seen_in_both_frames():
    tracks = torch.tensor([[[1.7, 2.2], [5.0, 5.0], [3.0, 3.0]], [[2.1, 2.9], [8.5, 5.0], [3.0, 3.0]]])
    visible = torch.tensor([[True, True, False], [True, True, True]])
    source, target = track_pixels(tracks, visible, (6, 8))
    assert source.tolist() == [[2, 1]]
    assert target.tolist() == [[2, 2]]


# Consistency ---------------------------------------------------------------------------------------------------------


def plane_scene():
    """A slanted plane before a camera that moves sideways and forward; exact depth."""
    intrinsics = torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]).repeat(2, 1, 1)
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, :3, 3] = torch.tensor([0.2, 0.0, 0.3])
    from geo4d.geometry.cameras import camera_rays

    rays = camera_rays(intrinsics, (30, 40))
    normal, offset = torch.tensor([0.2, 0.1, 1.0]), 5.0
    depth = (offset - (c2w[:, :3, 3] * normal).sum(-1))[:, None, None] / (rays * normal).sum(-1)
    return depth, intrinsics, c2w


def test_depth_change_of_the_truth_is_zero_and_of_flicker_is_its_size():
    depth, intrinsics, c2w = plane_scene()
    source, target = static_correspondences(depth, intrinsics, c2w)
    assert source.shape[0] > 40
    exact = depth_change_sums(depth, depth, source, target)
    assert float(exact[2]) == 0
    assert float(exact[0]) == float(exact[1]) == source.shape[0]
    flicker = depth * torch.tensor([1.0, 1.1])[:, None, None]
    change = depth_change_sums(flicker, depth, source, target)
    assert float(change[2] / change[1]) == pytest.approx(math.log(1.1), rel=1e-4)
    holes = flicker.clone()
    holes[1] = torch.nan
    assert float(depth_change_sums(holes, depth, source, target)[1]) == 0


def test_moving_and_hidden_pixels_are_no_tracks():
    depth, intrinsics, c2w = plane_scene()
    all_tracks = static_correspondences(depth, intrinsics, c2w)[0].shape[0]
    static = torch.ones(30, 40, dtype=torch.bool)
    static[:, :20] = False
    assert static_correspondences(depth, intrinsics, c2w, static)[0].shape[0] < all_tracks
    occluded = depth.clone()
    occluded[1] = 1.0
    assert static_correspondences(occluded, intrinsics, c2w)[0].shape[0] == 0


def test_given_tracks_measure_depth_change():
    depth = torch.full((2, 4, 4), 2.0)
    depth[1] = 4.0
    tracks = torch.tensor([[1.5, 1.5], [3.5, 0.5], [9.0, 1.0], [float("nan"), 1.0]]).expand(2, 4, 2)
    visible = torch.tensor([[True, True, True, True], [True, False, True, True]])
    sums = track_depth_change_sums(depth, torch.full((2, 4), 2.0), tracks, visible)
    assert sums.tolist() == pytest.approx(
        [1, 1, math.log(2)]
    )  # hidden, outside and unknown ones are no tracks
    depth[1] = torch.nan
    assert track_depth_change_sums(depth, torch.full((2, 4), 2.0), tracks, visible).tolist() == [1, 0, 0]


# Published numbers ---------------------------------------------------------------------------------------------------


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


def test_unmoved_pixels_need_no_truth():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(20, 30, 3, generator=generator)
    later = picture.clone()
    later[:, 20:] = torch.rand(20, 10, 3, generator=generator)  # something came by
    depth = torch.full((2, 20, 30), 3.0)
    depth[1] *= 1.02
    depth[1, :, 20:] *= 2
    depth[0, 5, 5] = torch.nan
    change = unmoved_change(depth, torch.stack([picture, later]))
    assert torch.allclose(change, torch.tensor(1.02).double().log(), atol=1e-6)
    assert 20 * 14 <= len(change) <= 20 * 20 - 1
