from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.fusion import AlignConfig, CameraEvidence, align, find_bad_windows, fuse, iter_dense
from geo4d.fusion.align import objective_on_all_pixels
from geo4d.geometry.cameras import unproject
from geo4d.geometry.poses import inverse, transform
from geo4d.synthetic.predictions import without
from geo4d.types import Prediction, Reconstruction


def is_finite(reconstruction: Reconstruction) -> bool:
    """Cameras finite, depth positive or marked, confidence a probability."""
    depth = np.asarray(reconstruction.depth)
    assert reconstruction.c2w is not None
    return bool(
        np.isfinite(reconstruction.c2w).all()
        and np.isfinite(reconstruction.intrinsics).all()
        and (np.isnan(depth) | (depth > 0)).all()
        and (
            (np.asarray(reconstruction.confidence) >= 0) & (np.asarray(reconstruction.confidence) <= 1)
        ).all()
    )


def without_surface(prediction: Prediction) -> Prediction:
    """Nothing valid, and a disparity that says: far."""
    assert prediction.valid is not None
    assert prediction.disparity is not None
    far = torch.full_like(prediction.disparity, -0.02)
    return replace(prediction, valid=torch.zeros_like(prediction.valid), disparity=far)


@pytest.mark.parametrize("mode", ["published", "corrected"])
def test_exact_predictions_give_the_truth(make_wall, errors, mode):
    wall = make_wall(noise=0.0)
    result = fuse(wall.predictions, num_frames=wall.num_frames, config=getattr(AlignConfig, mode)())
    found = errors(wall, result)
    assert found["known"] == 1
    limits = {"corrected": (0.01, 0.1, 0.3, 0.002), "published": (0.05, 0.7, 6.0, 0.02)}[mode]
    assert found["ate"] < limits[0]
    assert found["rotation_deg"] < limits[1]
    assert found["focal_percent"] < limits[2]
    assert found["abs_rel"] < limits[3]
    assert result.reliable.all()


def test_noise_is_averaged(make_wall, errors):
    wall = make_wall(num_frames=20, noise=0.01)
    found = errors(wall, fuse(wall.predictions, num_frames=20))
    assert found["ate"] < 0.05
    assert found["focal_percent"] < 2
    assert found["abs_rel"] < 0.01


@pytest.mark.parametrize("bad", [(0,), (1,), (3,)])
def test_a_bad_window_is_found_and_harms_only_its_own_frames(make_wall, errors, bad):
    wall = make_wall(num_frames=20, noise=0.01, bad=bad)
    alignment = align(wall.predictions, num_frames=20)
    assert find_bad_windows(alignment) == list(bad)
    dropped = {(d["window"], d["what"]) for d in alignment.diagnostics["dropped"]}
    assert {(bad[0], "points"), (bad[0], "disparity"), (bad[0], "trajectory")} <= dropped
    seen = {f for k, p in enumerate(wall.predictions) if k not in bad for f in p.frame_indices.tolist()}
    assert alignment.reliable.tolist() == [f in seen for f in range(20)]
    found = errors(wall, fuse(wall.predictions, num_frames=20), sorted(seen))
    assert found["abs_rel"] < 0.02


def test_a_forced_window_list_is_taken(make_wall):
    wall = make_wall(num_frames=16)
    config = replace(AlignConfig.published(), force_dropped_disparity=(1,), force_kept_trajectory=(0,))
    alignment = align(wall.predictions, num_frames=16, config=config)
    assert alignment.disparity_weight[1] == 0
    assert {d["window"] for d in alignment.diagnostics["dropped"] if d["what"] == "trajectory"} == {1, 2}


def test_a_window_that_shares_no_valid_pixel_with_the_others_is_no_scene_of_its_own(make_wall):
    wall = make_wall(num_frames=20, noise=0.01)
    rest = torch.zeros_like(wall.predictions[0].valid)
    rest[..., : rest.shape[-1] // 3] = True
    network = [replace(p, valid=p.valid & ~rest[: p.num_frames]) for p in wall.predictions]
    lonely = replace(wall.predictions[0], valid=wall.predictions[0].valid & rest, window_index=len(network))
    alignment = align([*network, lonely], num_frames=20)
    assert find_bad_windows(alignment) == [len(network)]
    assert alignment.reliable.all()
    assert len(alignment.diagnostics["scenes"]) == 1


@pytest.mark.parametrize("forced", [(), (1,), (0, 2)])
def test_windows_judged_before_are_not_judged_again(make_wall, forced):
    wall = make_wall(num_frames=20, noise=0.01, bad=(2,))
    config = replace(AlignConfig.corrected(), force_bad_windows=forced)
    assert find_bad_windows(align(wall.predictions, num_frames=20, config=config)) == list(forced)


def test_the_result_is_the_same_every_time(make_wall):
    wall = make_wall(noise=0.01)
    first, second = (align(wall.predictions, num_frames=16) for _ in range(2))
    assert torch.equal(first.c2w, second.c2w)
    assert torch.equal(first.disparity_scale, second.disparity_scale)


def test_zoom_is_followed_with_one_focal_length_per_frame(make_wall, errors):
    focal = 1.0 + 0.3 * np.linspace(0, 1, 24)
    wall = make_wall(num_frames=24, noise=0.002, focal=focal)
    zoom = fuse(wall.predictions, num_frames=24, config=replace(AlignConfig.corrected(), focal="per_frame"))
    shared = fuse(wall.predictions, num_frames=24)
    assert errors(wall, zoom)["focal_percent"] < 4
    assert errors(wall, shared)["focal_percent"] > 8


def test_known_cameras_are_held(make_wall, errors):
    wall = make_wall(noise=0.01)
    result = fuse(wall.predictions, num_frames=16, known_intrinsics=wall.intrinsics, known_c2w=wall.c2w)
    assert np.allclose(result.c2w, wall.c2w.numpy())
    assert np.allclose(result.intrinsics, wall.intrinsics.numpy())
    # The world is that of the known cameras, so the depth has their unit.
    assert np.median(np.asarray(result.depth) / wall.depth.numpy()) == pytest.approx(1, abs=0.02)


def test_known_intrinsics_alone(make_wall, errors):
    wall = make_wall(noise=0.01)
    found = errors(wall, fuse(wall.predictions, num_frames=16, known_intrinsics=wall.intrinsics))
    assert found["focal_percent"] < 1e-6
    assert found["ate"] < 0.05


def test_camera_evidence_helps_when_the_rays_are_missing(make_wall, errors):
    wall = make_wall(noise=0.03, num_frames=20)
    bare = [without(p, "rays") for p in wall.predictions]
    evidence = CameraEvidence(wall.c2w, wall.intrinsics, torch.ones(20, dtype=torch.float64))
    alone = errors(wall, fuse(bare, num_frames=20))
    helped = errors(wall, fuse(bare, num_frames=20, motion=evidence))
    assert helped["rotation_deg"] < 0.6 * alone["rotation_deg"]


@pytest.mark.parametrize("missing", [("rays",), ("disparity",), ("rays", "disparity")])
def test_modalities_may_be_missing(make_wall, errors, missing):
    wall = make_wall(noise=0.005)
    found = errors(wall, fuse([without(p, *missing) for p in wall.predictions], num_frames=16))
    assert found["abs_rel"] < 0.01
    assert found["ate"] < 0.15


def test_windows_with_gaps_and_any_length(make_wall, errors):
    windows = [
        list(range(8)),
        list(range(4, 12)),
        [0, 3, 6, 9, 12, 15],
        list(range(8, 16)),
        list(range(10, 16)),
    ]
    wall = make_wall(windows=windows, noise=0.005)
    found = errors(wall, fuse(wall.predictions, num_frames=16))
    assert found["ate"] < 0.05
    assert found["known"] == 1


def test_predictions_are_read_once_and_may_be_lazy(make_wall):
    wall = make_wall(noise=0.005)

    reads: list[int] = []

    class Lazy(Sequence):
        def __len__(self):
            return len(wall.predictions)

        def __getitem__(self, index):
            reads.append(index)
            return wall.predictions[index]

    align(Lazy(), num_frames=16)
    # The type checks of the test run peek at a few items as well.
    assert set(reads) == {0, 1, 2}
    assert len(reads) <= 12


def test_terms_on_samples_are_those_on_all_pixels(make_wall):
    wall = make_wall(noise=0.01)
    alignment = align(wall.predictions, num_frames=16)
    maps = {m.frame_index: m.depth for m in iter_dense(alignment, wall.predictions)}
    exact = objective_on_all_pixels(alignment, wall.predictions, lambda f: maps[f])
    sampled = alignment.diagnostics["scenes"][0]["terms_on_samples"]
    assert exact.trajectory == pytest.approx(sampled["trajectory"], rel=1e-3)
    assert exact.smoothness == pytest.approx(sampled["smoothness"], rel=1e-3)
    assert exact.points == pytest.approx(sampled["points"], rel=0.05)
    assert exact.disparity == pytest.approx(sampled["disparity"], rel=0.1)


# Bad input: finite output or a clear statement.


def test_one_window(make_wall, errors):
    wall = make_wall(num_frames=8)
    found = errors(wall, fuse(wall.predictions, num_frames=8))
    assert found["abs_rel"] < 0.01
    assert found["ate"] < 0.1


def test_one_frame(make_wall):
    wall = make_wall(num_frames=1, windows=[[0]])
    result = fuse(wall.predictions, num_frames=1)
    assert is_finite(result)
    assert np.isfinite(result.depth).all()


def test_all_pixels_invalid(make_wall, caplog):
    wall = make_wall()
    empty = [without_surface(p) for p in wall.predictions]
    result = fuse(empty, num_frames=16)
    assert is_finite(result)
    assert not result.reliable.any()
    assert not np.isfinite(result.depth).any()
    assert "unreliable" in caplog.text


def test_sky_only(make_wall):
    wall = make_wall()
    sky = [replace(without_surface(p), sky=torch.ones_like(p.valid)) for p in wall.predictions]
    result = fuse(sky, num_frames=16)
    assert np.isposinf(result.depth).all()
    assert not result.reliable.any()


@pytest.mark.parametrize("motion", ["still", "turn"])
def test_no_parallax(make_wall, errors, motion):
    wall = make_wall(motion=motion, noise=0.003)
    result = fuse(wall.predictions, num_frames=16)
    assert is_finite(result)
    found = errors(wall, result)
    assert found["rotation_deg"] < 0.5
    assert found["abs_rel"] < 0.02
    # Without true motion the estimated one is small against the depth.
    assert np.linalg.norm(np.diff(result.c2w[:, :3, 3], axis=0), axis=1).max() < 0.02 * np.median(
        result.depth
    )


def test_planar_scene(make_wall):
    wall = make_wall(relief=0.0, noise=0.002)
    assert is_finite(fuse(wall.predictions, num_frames=16))


def test_all_windows_bad(make_wall):
    wall = make_wall(num_frames=16, bad=(0, 1, 2))
    alignment = align(wall.predictions, num_frames=16)
    assert len(find_bad_windows(alignment)) >= 2
    assert is_finite(fuse(wall.predictions, num_frames=16))


def test_nan_in_a_window(make_wall, errors):
    wall = make_wall(windows=[list(range(s, s + 8)) for s in range(0, 9, 2)], noise=0.005)
    broken = wall.predictions[1]
    points = broken.point_map.clone()
    points[2:5, :, ::2] = torch.nan
    cameras = broken.ray_c2w.clone()
    cameras[3] = torch.nan
    disparity = broken.disparity.clone()
    disparity[:, 0] = torch.inf
    wall.predictions[1] = replace(broken, point_map=points, ray_c2w=cameras, disparity=disparity)
    result = fuse(wall.predictions, num_frames=16)
    assert is_finite(result)
    assert errors(wall, result)["abs_rel"] < 0.01
    wall.predictions[1] = replace(
        broken,
        point_map=torch.full_like(points, torch.nan),
        disparity=torch.full_like(disparity, torch.nan),
        ray_c2w=torch.full_like(cameras, torch.nan),
    )
    result = fuse(wall.predictions, num_frames=16)
    assert is_finite(result)
    assert errors(wall, result)["abs_rel"] < 0.01
    assert any(d["window"] == 1 and d["what"] == "points" for d in result.diagnostics["dropped"])


def test_windows_that_do_not_overlap_become_scenes(make_wall):
    windows = [list(range(0, 8)), list(range(4, 12)), list(range(12, 20)), list(range(16, 24))]
    wall = make_wall(num_frames=24, windows=windows)
    result = fuse(wall.predictions, num_frames=24)
    assert is_finite(result)
    assert result.scene.tolist() == [0] * 12 + [1] * 12
    ratio = np.asarray(result.depth) / wall.depth.numpy()
    for part in (ratio[:12], ratio[12:]):
        assert np.std(part) / np.mean(part) < 0.01


def test_what_is_dropped_in_a_later_scene_is_named_by_its_number_in_the_video(make_wall):
    windows = [list(range(0, 8)), list(range(4, 12)), list(range(12, 20)), list(range(16, 24))]
    wall = make_wall(num_frames=24, windows=windows, noise=0.01, bad=(2,))
    alignment = align(wall.predictions, num_frames=24)
    assert alignment.scene.tolist() == [0] * 12 + [1] * 12
    dropped = {(d["window"], d["what"]) for d in alignment.diagnostics["dropped"]}
    assert {(2, "disparity"), (2, "trajectory")} <= dropped
    assert {window for window, _ in dropped} <= {2, 3}
    assert (alignment.disparity_weight > 0).tolist() == [True, True, False, True]


def test_a_window_whose_first_frames_belong_to_another_scene_does_not_start_its_focal_length(make_wall):
    windows = [list(range(0, 8)), list(range(4, 12)), list(range(10, 18)), list(range(14, 24))]
    wall = make_wall(num_frames=24, windows=windows, noise=0.01)
    second, third = wall.predictions[1:3]
    left, right = second.valid.clone(), third.valid.clone()
    left[-2:, :, 18:] = False
    right[:2, :, :18] = False  # no pixel of the two shared frames is valid in both
    wall.predictions[1:3] = replace(second, valid=left), replace(third, valid=right)
    alignment = align(wall.predictions, num_frames=24)
    assert alignment.scene.tolist() == [0] * 12 + [1] * 12
    for scene in alignment.diagnostics["scenes"]:
        assert scene["focal_start"][0] == pytest.approx(36, rel=0.05)


def test_an_empty_window_takes_no_frames_from_the_others(make_wall):
    windows = [list(range(0, 8)), list(range(4, 12)), list(range(8, 16)), list(range(12, 20))]
    wall = make_wall(num_frames=20, windows=windows, noise=0.01)
    wall.predictions[1] = without_surface(wall.predictions[1])
    alignment = align(wall.predictions, num_frames=20)
    assert alignment.scene.tolist() == [0] * 8 + [1] * 12
    assert alignment.reliable.all()
    assert find_bad_windows(alignment) == [1]


def test_an_empty_window_may_own_no_frame(make_wall):
    wall = make_wall(num_frames=24, windows=[list(range(0, 8)), list(range(8, 24)), [8, 9]], noise=0.01)
    wall.predictions[2] = without_surface(wall.predictions[2])
    result = fuse(wall.predictions, num_frames=24)
    assert is_finite(result)
    assert result.scene.tolist() == [0] * 8 + [1] * 16
    assert result.reliable.all()


def test_frames_that_no_window_sees(make_wall):
    wall = make_wall(num_frames=20, windows=[list(range(0, 8)), list(range(4, 12))])
    result = fuse(wall.predictions, num_frames=20)
    assert is_finite(result)
    assert result.reliable.tolist() == [True] * 12 + [False] * 8
    assert np.isnan(np.asarray(result.depth)[12:]).all()


def test_wrong_arguments_are_refused(make_wall):
    wall = make_wall()
    with pytest.raises(ValueError, match="at least one prediction"):
        align([], num_frames=3)
    with pytest.raises(ValueError, match="distinct frames"):
        align(wall.predictions, num_frames=10)
    other = make_wall(size=(20, 30)).predictions
    with pytest.raises(ValueError, match="maps of"):
        align([wall.predictions[0], other[1]], num_frames=16)


def test_metric_points_keep_their_unit(make_wall):
    wall = make_wall(noise=0.0)
    metric = []
    for p in wall.predictions:
        frames = p.frame_indices
        true_z, z = wall.depth[frames[0]], p.point_map[0, ..., 2]
        scale = float((true_z.max() - true_z.min()) / (z.max() - z.min()))
        points = p.point_map * scale
        points[..., 2] += float(true_z.min()) - float(points[0, ..., 2].min())
        metric.append(
            replace(
                p, point_map=points, point_uncertainty=None, point_scale_kind="metric", point_z_offset=0.0
            )
        )
    result = fuse(metric, num_frames=16)
    assert result.scale_kind == "metric"
    assert np.median(np.asarray(result.depth) / wall.depth.numpy()) == pytest.approx(1, abs=0.02)


def test_evidence_in_its_own_unit_does_not_take_the_metres_away(make_wall):
    """Windows in metres beside what tracks say, which is in the unit of their cameras: the world stays in metres."""
    wall = make_wall(noise=0.0)
    metric = [
        replace(
            p,
            point_map=points_of(wall, p),
            point_scale_kind="metric",
            point_z_offset=0.0,
            point_uncertainty=None,
        )
        for p in wall.predictions
    ]
    swept = [replace(p, point_map=0.2 * p.point_map, point_scale_kind="scale") for p in metric]
    k = wall.intrinsics.double()
    followed = wall.c2w.double().clone()
    followed[:, :3, 3] *= 0.2  # points and cameras from tracks share a unit
    cameras = CameraEvidence(
        c2w=followed,
        intrinsics=k if k.ndim == 3 else k.expand(wall.num_frames, 3, 3),
        confidence=torch.ones(wall.num_frames).double(),
        windows=tuple(range(len(metric), 2 * len(metric))),
    )
    found = align([*metric, *swept], num_frames=wall.num_frames, motion=cameras)
    assert found.scale_kind == "metric"
    walked = float((found.c2w[-1] - found.c2w[0])[:3, 3].norm())
    assert walked == pytest.approx(float((wall.c2w[-1] - wall.c2w[0])[:3, 3].norm()), rel=0.03)
    other = align([*metric, *swept], num_frames=wall.num_frames, motion=replace(cameras, windows=()))
    assert other.scale_kind == "scale"


def points_of(wall, prediction):
    """True points in the first camera of the prediction's window."""
    frames = prediction.frame_indices
    k = wall.intrinsics if wall.intrinsics.ndim == 3 else wall.intrinsics.expand(wall.num_frames, 3, 3)
    points = unproject(wall.depth[frames].double(), k[frames].double())
    poses = inverse(wall.c2w[frames[:1]].double()) @ wall.c2w[frames].double()
    return torch.stack([transform(pose, one) for pose, one in zip(poses, points, strict=True)]).float()
