"""Metric results, against truth and by evo: the worlds are exact, the predictor answers in units of its own."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from evo.core import metrics, sync
from evo.core.trajectory import PoseTrajectory3D

import geo4d
from geo4d.errors import GeometryError, InputError
from geo4d.formats.cameras import save_kitti_poses, save_tum
from geo4d.geometry.paths import fit_path
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.results.verdict import judge_result
from geo4d.run.align import align_windows
from tests.support.truth import BoxWorld, TruthPredictor

WORLD, NUM, STEP_S = BoxWorld((30, 40)), 24, 0.05
TURN = rigid(so3_exp(torch.tensor([0.3, 1.0, -0.4])), torch.tensor([4.0, -2.0, 7.0])).double()
"""The world of the trajectory is another one than that of the predictor."""


def poses(num=NUM):
    return (TURN @ torch.stack([WORLD.c2w(t) for t in range(num)]).double()).numpy()


def tum(path, num=NUM, shift=0.0, rate=3):
    """Denser than the frames and a little beside them, as motion capture is."""
    stamps = np.arange(-2, rate * num) * STEP_S / rate + 0.004
    known = torch.stack([_pose(s / STEP_S) for s in stamps])
    save_tum(path, stamps + shift, (TURN @ known).numpy())
    return path


def _pose(t):
    return WORLD.c2w(t).double()


@pytest.fixture(scope="module")
def pictures():
    return np.stack([(WORLD.rgb(t) * 255).round().byte().numpy() for t in range(NUM)])


def run(pictures, output=None, **settings):
    predictor = settings.pop("model", TruthPredictor(WORLD, noise=0.03))
    times = np.arange(len(pictures)) * STEP_S
    return geo4d.reconstruct(
        pictures, output, model=predictor, times_s=times, split_shots=False, output_size="model", **settings
    )


def ate(result, known):
    """(after a rigid alignment, after a similarity), metres, by evo."""
    times = np.asarray(result.times_s, float)
    reference = PoseTrajectory3D(timestamps=times, poses_se3=list(known))
    found = PoseTrajectory3D(timestamps=times, poses_se3=list(np.asarray(result.c2w, np.float64)))
    reference, found = sync.associate_trajectories(reference, found)
    errors = []
    for with_scale in (False, True):
        aligned = copy.deepcopy(found)
        aligned.align(reference, correct_scale=with_scale)
        ape = metrics.APE(metrics.PoseRelation.translation_part)
        ape.process_data((reference, aligned))
        errors.append(ape.get_statistic(metrics.StatisticsType.rmse))
    return errors


def depth_ratio(result):
    ratios = [np.asarray(result.depth[t]) / WORLD.depth(t).numpy() for t in range(result.num_frames)]
    return float(np.nanmedian(ratios))


def test_without_a_reference_the_unit_is_unknown(pictures):
    result = run(pictures)
    assert result.scale_kind == "scale"
    rigid_ate, similar_ate = ate(result, poses())
    assert rigid_ate > 3 * similar_ate  # the checks below can fail
    assert abs(np.log(depth_ratio(result))) > 0.05


def test_a_trajectory_gives_the_scale(pictures, tmp_path):
    result = run(pictures, tmp_path / "out", trajectory=tum(tmp_path / "path.txt"))
    assert result.scale_kind == "metric"
    rigid_ate, similar_ate = ate(result, poses())
    assert rigid_ate <= 1.2 * similar_ate
    assert depth_ratio(result) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(result.c2w[0], np.eye(4), atol=1e-6)  # the world is still the first camera
    said = judge_result(result).lines()
    assert any("metric: the scale is that of path.txt (TUM)" in line for line in said)
    told = result.provenance["metric"]
    assert told["by"] == "trajectory"
    assert len(told["source"]["sha256"]) == 64
    # the transform to the world of the trajectory is told, too
    moved = np.array(told["scenes"][0]["result_to_trajectory"]) @ np.asarray(result.c2w, np.float64)
    assert np.abs(moved[:, :3, 3] - poses()[:, :3, 3]).max() < 5 * similar_ate


def test_poses_may_be_taken_as_they_are(pictures, tmp_path):
    result = run(pictures, trajectory=tum(tmp_path / "path.txt"), trajectory_use="poses")
    np.testing.assert_allclose(result.c2w, poses(), atol=2e-3)  # interpolated, stored in float32
    assert depth_ratio(result) == pytest.approx(1, abs=0.03)
    assert result.diagnostics["metric"]["use"] == "poses"


def test_measured_depth_gives_the_scale(pictures, tmp_path):
    for t in range(NUM):
        depth = WORLD.depth(t).double().numpy()
        depth[:, :10] = 0  # a sensor does not see everywhere
        np.save(tmp_path / f"{t:04d}.npy", np.repeat(np.repeat(depth, 2, 0), 2, 1))  # of another size
    result = run(pictures, depth=tmp_path)
    assert result.scale_kind == "metric"
    assert depth_ratio(result) == pytest.approx(1, abs=0.02)
    rigid_ate, similar_ate = ate(result, poses())
    path = np.linalg.norm(np.diff(poses()[:, :3, 3], axis=0), axis=1).sum()
    assert rigid_ate < similar_ate + 0.02 * path
    assert "measured depth" in result.diagnostics["metric"]["statement"]


def test_a_path_of_another_scale_than_the_maps_comes_out_right(tmp_path, monkeypatch):
    """Fused maps and the path of a result may differ by some percent; measured depth tells of each."""
    world = BoxWorld((120, 160))
    large = np.stack([(world.rgb(t) * 255).round().byte().numpy() for t in range(NUM)])

    def too_long(*given):
        alignment, *rest = align_windows(*given)
        c2w = alignment.c2w.clone()
        c2w[:, :3, 3] *= 1.08
        return replace(alignment, c2w=c2w), *rest

    monkeypatch.setattr("geo4d.run.reconstruct.align_windows", too_long)
    for t in range(NUM):
        np.save(tmp_path / f"{t:04d}.npy", world.depth(t).double().numpy())
    result = run(large, depth=tmp_path, model=TruthPredictor(world, noise=0.03))
    ratios = [np.asarray(result.depth[t]) / world.depth(t).numpy() for t in range(NUM)]
    assert np.nanmedian(ratios) == pytest.approx(1, abs=0.02)
    found, known = (np.asarray(c2w, np.float64)[:, :3, 3] for c2w in (result.c2w, poses()))
    assert fit_path(torch.from_numpy(found), torch.from_numpy(known)).scale == pytest.approx(1, abs=0.025)
    (scene,) = result.diagnostics["metric"]["scenes"]
    assert scene["metres_per_unit"] / scene["metres_per_unit_of_the_path"] == pytest.approx(1.08, abs=0.03)
    assert "% to that of the maps" in result.diagnostics["metric"]["statement"]


def test_another_trajectory_after_a_refused_one_computes_no_window_twice(pictures, tmp_path):
    wrong = np.tile(np.eye(4), (NUM, 1, 1))
    wrong[:, :3, 3] = np.random.default_rng(0).normal(size=(NUM, 3))
    save_kitti_poses(tmp_path / "wrong.txt", wrong)
    with pytest.raises(GeometryError, match="scale of scene 0 is not determined: the path of the result"):
        run(pictures, tmp_path / "out", trajectory=tmp_path / "wrong.txt")
    assert not (tmp_path / "out").exists()
    asked = []

    class Counted(TruthPredictor):
        def predict(self, window, **more):
            asked.append(window.index)
            return super().predict(window, **more)

    known = tum(tmp_path / "path.txt")
    counted = Counted(WORLD, noise=0.03)
    result = run(pictures, tmp_path / "out", trajectory=known, resume=True, model=counted)
    assert result.scale_kind == "metric"
    assert asked == []


def test_without_parallax_the_scale_is_refused(tmp_path):
    class Turning(BoxWorld):
        def c2w(self, t):
            pose = super().c2w(t)
            pose[:3, 3] = 0
            return pose

    world = Turning((60, 80))
    frames = np.stack([(world.rgb(t) * 255).round().byte().numpy() for t in range(12)])
    save_kitti_poses(tmp_path / "path.txt", poses(12))
    with pytest.raises(GeometryError, match="no translation"):
        run(
            frames,
            trajectory=tmp_path / "path.txt",
            model=TruthPredictor(world, length=6, stride=3, evidence="motion"),
        )
    for t in range(12):
        np.save(tmp_path / f"{t:04d}.npy", world.depth(t).double().numpy())
    result = run(frames, depth=tmp_path, model=TruthPredictor(world, length=6, stride=3, evidence="motion"))
    assert np.nanmedian(np.asarray(result.depth[5]) / world.depth(5).numpy()) == pytest.approx(1, abs=0.02)
    told = result.diagnostics["metric"]
    assert told["scenes"][0]["metres_per_unit_of_the_path"] is None
    assert "the path of scene 0 takes the scale of the maps" in told["statement"]


def test_depth_that_is_of_something_else_is_refused(pictures, tmp_path):
    noise = np.random.default_rng(0)
    for t in range(NUM):
        np.save(tmp_path / f"{t:04d}.npy", np.exp(noise.normal(size=(30, 40))))
    with pytest.raises(GeometryError, match=r"differ by .* after one factor"):
        run(pictures, depth=tmp_path)
    for t in range(NUM):
        np.save(tmp_path / f"{t:04d}.npy", np.zeros((30, 40)))
    with pytest.raises(GeometryError, match="no frame has 64 pixels"):
        run(pictures, depth=tmp_path)


def test_what_does_not_fit_is_refused_before_the_work(pictures, tmp_path):
    def never(plan):
        raise AssertionError("the work began")

    late = tum(tmp_path / "late.txt", shift=1000.0)
    with pytest.raises(InputError, match="--time-offset"):
        run(pictures, trajectory=late, on_plan=never)
    with pytest.raises(InputError, match="expected a pose for every frame"):
        run(pictures, trajectory=tum(tmp_path / "short.txt", num=20), trajectory_use="poses", on_plan=never)
    with pytest.raises(ValueError, match="got both"):
        run(pictures, trajectory=late, depth=tmp_path)
    with pytest.raises(ValueError, match="time_offset"):
        run(pictures, time_offset=1.0)
    with pytest.raises(ValueError, match="depth_unit"):
        run(pictures, depth_unit=0.001)


def test_scenes_have_factors_of_their_own(tmp_path):
    """Two shots of one world, the second as if a hundred times larger."""
    from geo4d.run.metric import KnownPath
    from tests.support.metric import alignment_of, given_poses

    c2w = torch.stack([_pose(t) for t in range(12)])
    scene = torch.tensor([0] * 6 + [1] * 6)
    found = c2w.clone()
    found[:6, :3, 3] *= 0.5
    found[6:, :3, 3] *= 4
    metric = KnownPath(given_poses(c2w), False).measure(alignment_of(found, scene), (), None)
    torch.testing.assert_close(metric.factor, torch.tensor([2.0] * 6 + [0.25] * 6).double())
    lost = replace(alignment_of(found, scene), reliable=torch.tensor([True] * 8 + [False] * 4))
    with pytest.raises(GeometryError, match="scene 1 is not determined: expected at least three positions"):
        KnownPath(given_poses(c2w), False).measure(lost, (), None)
