import numpy as np
import pytest
import torch

from geo4d.geometry.cameras import unproject
from geo4d.geometry.maps import ray_map_to_cameras
from geo4d.geometry.poses import inverse, so3_log, transform
from geo4d.synthetic.predictions import (
    NO_NOISE,
    PredictionNoise,
    TruthSource,
    iter_predictions,
    make_prediction,
    without,
)
from geo4d.synthetic.render import make_scene
from geo4d.synthetic.scene import SceneConfig

SIZE = (48, 80)


@pytest.fixture(scope="module")
def source():
    config = SceneConfig(seed=21, kind="street", camera="dolly", num_frames=24, fps=8.0)
    return TruthSource(make_scene(config), SIZE)


def true_points(source, frames):
    """Points in the first camera of the window, and where there is a surface."""
    depth = torch.stack([source.frame(t)[0] for t in frames])
    cameras = inverse(source.c2w[frames[0]]) @ source.c2w[frames]
    surface = torch.isfinite(depth)
    filled = torch.where(surface, depth, 1.0)
    return transform(cameras, unproject(filled, source.intrinsics[frames])), surface, depth, cameras


def decoded(prediction):
    points = prediction.point_map.clone()
    points[..., 2] += prediction.provenance["true_z_offset"]
    return points * prediction.provenance["true_scale"]


def test_without_noise_it_is_the_truth(source):
    frames = list(range(4, 20))
    prediction = source.predict(frames, 3, NO_NOISE)
    points, surface, depth, cameras = true_points(source, frames)
    assert torch.equal(prediction.sky, ~surface)
    assert not (prediction.valid & ~surface).any()
    # points further than the range of the normalisation are clipped and not valid
    assert prediction.valid[surface].float().mean() > 0.8
    use = prediction.valid
    torch.testing.assert_close(decoded(prediction)[use], points[use], rtol=1e-4, atol=1e-3)
    truth = prediction.provenance
    inside = surface & (prediction.disparity > 0.0) & (prediction.disparity < 1.0)
    restored = prediction.disparity * truth["true_disparity_scale"] + truth["true_disparity_shift"]
    torch.testing.assert_close(restored[inside], (1.0 / depth)[inside], rtol=1e-4, atol=1e-5)
    expected = cameras.clone()
    expected[:, :3, 3] /= truth["true_ray_scale"]
    torch.testing.assert_close(prediction.ray_c2w, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ray_map_to_cameras(prediction.ray_map), expected, rtol=0, atol=1e-4)
    assert prediction.frame_indices.tolist() == frames
    assert prediction.times_s.tolist() == pytest.approx([t / 8.0 for t in frames])
    assert prediction.point_z_offset is None


def test_the_range_is_normalised(source):
    prediction = source.predict(range(16), 0, NO_NOISE)
    z = prediction.point_map[..., 2][~prediction.sky]
    low, high = torch.quantile(z, torch.tensor([0.02, 0.98]))
    assert low == pytest.approx(0.0, abs=0.02)
    assert high == pytest.approx(1.0, abs=0.02)
    sky = prediction.point_map[prediction.sky]
    assert torch.equal(sky, torch.tensor([0.525, 0.525, 1.025]).expand_as(sky))
    assert (prediction.disparity[prediction.sky] == -0.025).all()


def test_noise_is_as_large_as_reported(source):
    frames = list(range(16))
    pixel_only = PredictionNoise(**{**vars(NO_NOISE), "point": 1.0})
    clean, noisy = source.predict(frames, 0, NO_NOISE), source.predict(frames, 0, pixel_only)
    use = clean.valid & noisy.valid
    error = (noisy.point_map - clean.point_map)[use]
    ratio = error / noisy.point_uncertainty[use][:, None]
    assert ratio.std() == pytest.approx(1.0, abs=0.05)
    assert ratio.abs().median() == pytest.approx(np.log(2.0) / np.sqrt(2.0), abs=0.03)  # Laplace
    report = noisy.point_uncertainty
    assert report[-1].median() > 1.4 * report[0].median()  # grows over the window


def test_default_errors_are_those_of_the_model(source):
    frames = list(range(16))
    truth, prediction = source.predict(frames, 2, NO_NOISE), source.predict(frames, 2)
    use = truth.valid & prediction.valid
    error = (prediction.point_map - truth.point_map).norm(dim=-1)[use]
    assert 0.005 < error.median() < 0.05
    assert (error > 0.1).float().mean() > 0.005  # outliers and discs
    torn = prediction.valid & truth.sky
    assert 0 < torn.sum() < 0.05 * truth.sky.sum()
    turn = so3_log(truth.ray_c2w[:, :3, :3].mT @ prediction.ray_c2w[:, :3, :3]).norm(dim=-1).rad2deg()
    assert turn[0] < 1e-3
    assert 0.05 < turn[1:].mean() < 2.0
    assert torch.isfinite(prediction.point_map).all()
    assert torch.isfinite(prediction.disparity).all()
    assert (prediction.point_uncertainty > 0).all()


def test_a_bad_window_is_much_worse(source):
    frames = list(range(16))
    truth, bad = source.predict(frames, 2, NO_NOISE), source.predict(frames, 2, bad=True)
    use = truth.valid & bad.valid
    error = (bad.point_map - truth.point_map).norm(dim=-1)[use]
    assert error.median() > 0.05
    both = torch.stack([truth.disparity[use], bad.disparity[use]])
    assert torch.corrcoef(both)[0, 1].abs() < 0.6
    turn = so3_log(truth.ray_c2w[:, :3, :3].mT @ bad.ray_c2w[:, :3, :3]).norm(dim=-1).rad2deg()
    assert turn[1:].median() > 2.0
    assert bad.provenance["bad"]


def test_seed_and_window_determine_the_noise(source):
    frames = list(range(16))
    first, again = source.predict(frames, 1, seed=5), source.predict(frames, 1, seed=5)
    for name, value in first.tensors().items():
        assert torch.equal(value, again.tensors()[name]), name
    assert not torch.equal(first.point_map, source.predict(frames, 2, seed=5).point_map)
    assert not torch.equal(first.point_map, source.predict(frames, 1, seed=6).point_map)


def test_few_frames_are_kept_and_the_rest_is_the_same(source):
    thrifty = TruthSource(source.scene, SIZE, kept_frames=2)
    windows = [range(0, 16), range(4, 20), range(8, 24)]
    for window_index, frames in enumerate(windows):
        a, b = thrifty.predict(frames, window_index), source.predict(frames, window_index)
        assert torch.equal(a.point_map, b.point_map)
    assert len(thrifty._kept) == 2
    predictions = list(iter_predictions(source.scene, SIZE, windows, bad_windows={1}))
    assert [p.provenance["bad"] for p in predictions] == [False, True, False]
    assert torch.equal(predictions[2].point_map, source.predict(windows[2], 2).point_map)
    with pytest.raises(IndexError):
        source.predict([24], 0)
    with pytest.raises(ValueError, match="kept_frames"):
        TruthSource(source.scene, SIZE, kept_frames=0)


def test_a_window_of_sky_and_one_frame_do_not_fail():
    camera = torch.eye(4)[None]
    intrinsics = torch.tensor([[[40.0, 0.0, 10.0], [0.0, 40.0, 6.0], [0.0, 0.0, 1.0]]])
    depth = torch.full((1, 12, 20), torch.inf)
    prediction = make_prediction(depth, intrinsics, camera, torch.tensor([0]), torch.zeros(1), 0)
    assert not prediction.valid.any()
    assert torch.isfinite(prediction.point_map).all()
    assert torch.isfinite(prediction.ray_map).all()


def test_modalities_can_be_left_out(source):
    prediction = source.predict(range(4), 0)
    points_only = without(prediction, "rays", "disparity")
    assert points_only.ray_map is None
    assert points_only.disparity is None
    assert torch.equal(points_only.point_map, prediction.point_map)
    with pytest.raises(ValueError, match="modalities"):
        without(prediction, "colour")
