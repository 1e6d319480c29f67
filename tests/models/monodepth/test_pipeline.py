import dataclasses

import numpy as np
import pytest
import torch

from geo4d.geometry.poses import inverse
from geo4d.models.base import Predictor
from geo4d.models.monodepth.network import FrameDepths
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig, bending
from geo4d.results.verdict import judge_result
from geo4d.run.reconstruct import reconstruct
from tests.support.depths import Spoilt, as_window, box_clip, smooth, true_evidence
from tests.support.truth import BoxWorld

FRAMES = 8


@pytest.fixture(scope="module")
def clip():
    return box_clip(FRAMES)


def drift(num_frames=FRAMES, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return (0.2 * torch.randn(num_frames, generator=generator)).exp(), 0.15 * torch.rand(
        num_frames, generator=generator
    )


def predictor(network, **config) -> DepthPredictor:
    return DepthPredictor(
        network, name="spoilt", licence="none", config=MonoDepthConfig(max_side=120, **config)
    )


def depth_of(prediction):
    """z in each frame's own camera."""
    points = prediction.point_map
    if prediction.point_frame == "camera":
        return points[..., 2]
    w2c = inverse(prediction.ray_c2w)
    return torch.einsum("vj,vhwj->vhw", w2c[:, 2, :3], points) + w2c[:, 2, 3][:, None, None]


def abs_rel(depth, truth):
    factor = (depth / truth).median()
    return float((depth / factor / truth - 1).abs().mean())


def flicker(depth, truth):
    return float((depth / truth).log().flatten(1).median(1).values.diff().abs().mean())


def test_depth_under_the_cameras_from_tracks(clip):
    rgb, depth, k, c2w = clip
    scale, shift = drift()
    made = predictor(Spoilt(rgb, depth, scale=scale, shift=shift, bend=smooth(FRAMES, depth.shape[1:], 0.1)))
    assert isinstance(made, Predictor)
    found = made.predict(as_window(rgb), seed=0, evidence=true_evidence(depth, k, c2w, unit=0.5))
    ours = depth_of(found)
    # In the unit of the cameras, also where there is no evidence and it says nonsense.
    torch.testing.assert_close(ours.median(), (0.5 * depth).median(), rtol=0.05, atol=0)
    assert abs_rel(ours, depth) < 0.04
    assert flicker(ours, depth) < 0.01
    expected = inverse(c2w[:1]) @ c2w
    torch.testing.assert_close(found.ray_c2w[:, :3, :3], expected[:, :3, :3], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.ray_c2w[:, :3, 3], 0.5 * expected[:, :3, 3], atol=1e-4, rtol=0)
    assert found.point_scale_kind == "scale"
    assert found.provenance["depth_from"] == "evidence"


def test_it_beats_each_frame_by_itself(clip):
    """A network that also wobbles from frame to frame, under evidence that is noisy and leaves a quarter open."""
    rgb, depth, k, c2w = clip
    scale, shift = drift()
    bend = smooth(FRAMES, depth.shape[1:], 0.12, 5) + torch.cat(
        [smooth(1, depth.shape[1:], 0.04, seed) for seed in range(FRAMES)]
    )
    evidence = true_evidence(depth, k, c2w, noise=0.05)
    results = {}
    for alignment in ("steady", "per_frame"):
        made = predictor(Spoilt(rgb, depth, scale=scale, shift=shift, bend=bend), alignment=alignment)
        ours = depth_of(made.predict(as_window(rgb), seed=0, evidence=evidence))
        results[alignment] = abs_rel(ours, depth), flicker(ours, depth)
    assert results["steady"][0] < 0.9 * results["per_frame"][0]
    assert results["steady"][1] < 0.7 * results["per_frame"][1]


def test_metric_depth_stays_metric_and_scales_the_cameras(clip):
    rgb, depth, k, c2w = clip
    network = Spoilt(rgb, depth, scale_kind="metric", scale=drift()[0] ** 0.3)
    made = predictor(network)
    assert made.info.scale_kind == "metric"
    found = made.predict(as_window(rgb), seed=0, evidence=true_evidence(depth, k, c2w, unit=0.2))
    assert found.point_scale_kind == "metric"
    torch.testing.assert_close(depth_of(found).median(), depth.median(), rtol=0.1, atol=0)
    expected = (inverse(c2w[:1]) @ c2w)[-1, :3, 3].norm()
    torch.testing.assert_close(found.ray_c2w[-1, :3, 3].norm(), expected, rtol=0.1, atol=0)
    assert abs_rel(depth_of(found), depth) < 0.02


def test_without_parallax_it_follows_and_says_so(clip):
    rgb, depth, k, _ = (x[:1].repeat_interleave(FRAMES, 0) for x in clip)
    scale, shift = drift()
    still = torch.eye(4).expand(FRAMES, 4, 4)
    nothing = true_evidence(depth, k, still)
    nothing = dataclasses.replace(
        nothing, mask=torch.zeros_like(nothing.mask), confidence=torch.zeros_like(depth)
    )
    rgb = rgb + torch.arange(FRAMES)[:, None, None, None] * 1e-4  # so that the network can tell them apart
    made = predictor(Spoilt(rgb, depth, scale=scale, shift=shift))
    found = made.predict(as_window(rgb), seed=0, evidence=nothing)
    assert found.provenance["depth_from"] == "pictures"
    assert flicker(depth_of(found), depth) < 0.005
    torch.testing.assert_close(found.ray_c2w, still.clone())


def test_without_any_motion_points_are_in_each_camera(clip):
    rgb, depth, k, _ = clip
    found = predictor(Spoilt(rgb, depth)).predict(as_window(rgb), seed=0)
    assert found.point_frame == "camera"
    assert found.ray_c2w is None
    assert abs(float(found.intrinsics[0, 0, 0]) - 60 * 3**0.5) < 0.01  # 60 degrees over 120 pixels
    given = predictor(Spoilt(rgb, depth)).predict(as_window(rgb, intrinsics=2 * k), seed=0)
    assert torch.equal(given.intrinsics, 2 * k)


def test_the_next_window_keeps_what_was_found(clip):
    rgb, depth, k, c2w = clip
    scale, shift = drift()
    made = predictor(Spoilt(rgb, depth, scale=scale, shift=shift), window_length=6, window_stride=4)
    evidence = true_evidence(depth, k, c2w)
    part = {f.name: getattr(evidence, f.name) for f in dataclasses.fields(evidence)}
    first = made.predict(as_window(rgb[:6]), seed=0)
    late = {name: value[4:] if isinstance(value, torch.Tensor) else value for name, value in part.items()}
    words = {"seed": 0, "evidence": type(evidence)(**late)}
    window = as_window(rgb[4:], frames=[4, 5, 6, 7], index=1)
    assert made.info.carries  # a run refuses a carry that is not announced
    alone, after = made.predict(window, **words), made.predict(window, **words, previous=first)
    assert not torch.equal(alone.carry["scale"], after.carry["scale"])
    again = made.predict(window, **words, previous=first)
    assert all(torch.equal(value, again.tensors()[name]) for name, value in after.tensors().items())


def test_sky_is_no_surface(clip):
    rgb, depth, k, c2w = clip

    class WithSky(Spoilt):
        def __call__(self, rgb):
            found = super().__call__(rgb)
            sky = torch.zeros_like(found.disparity, dtype=torch.bool)
            sky[:, :10] = True
            return FrameDepths(found.disparity, None, sky)

    found = predictor(WithSky(rgb, depth)).predict(
        as_window(rgb), seed=0, evidence=true_evidence(depth, k, c2w)
    )
    assert torch.equal(found.sky, ~found.valid)
    assert found.sky.sum() == FRAMES * 10 * rgb.shape[2]


def test_the_field_follows_regions_and_not_outliers(clip):
    _, depth, _, _ = clip
    truth = 1 / depth
    bend = smooth(FRAMES, depth.shape[1:], 0.2, 8)
    wrong = truth * 1.0
    wrong[:, 30:40, 30:40] *= 20
    field = bending(truth * (-bend).exp(), wrong, torch.ones_like(truth), torch.zeros(*truth.shape, 3), 0.15)
    assert (field - bend).abs().mean() < 0.3 * bend.abs().mean()
    assert (field - bend)[:, 30:40, 30:40].abs().max() < 0.5


def test_sizes_and_settings():
    made = predictor(Spoilt(torch.rand(1, 4, 4, 3), torch.ones(1, 4, 4)))
    assert made.size_for((1080, 1920)) == (68, 120)
    assert made.memory_bytes((1080, 1920)) > 0
    assert made.prepare([]) == {}
    for wrong in ({"max_side": 8}, {"window_stride": 20}):
        with pytest.raises(ValueError, match="expected"):
            MonoDepthConfig(**wrong)


def test_metres_go_on_where_the_evidence_ends(clip):
    """A window with evidence in its own unit, then one without any: both are in metres."""
    rgb, depth, k, c2w = clip
    made = predictor(Spoilt(rgb, depth, scale_kind="metric"), window_length=6, window_stride=4)
    evidence = true_evidence(depth[:6], k[:6], c2w[:6], unit=0.2)
    first = made.predict(as_window(rgb[:6]), seed=0, evidence=evidence)
    torch.testing.assert_close(depth_of(first).median(), depth[:6].median(), rtol=0.02, atol=0)
    window = as_window(rgb[4:], frames=[4, 5, 6, 7], index=1)
    second = made.predict(window, seed=0, previous=first)
    assert second.provenance["depth_from"] == "pictures"
    torch.testing.assert_close(depth_of(second)[:2], depth[4:6], rtol=0.05, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["affine", "metric"])
def test_a_whole_run_under_cameras_from_tracks(kind):
    """Tracks, sweep, windows and fusion: right depth, and in metres where the network knows them."""
    world = BoxWorld((144, 240), fov_deg=60.0)
    rgb = torch.stack([world.rgb(4 * t) for t in range(20)])
    depth = torch.stack([world.depth(4 * t) for t in range(20)])
    rgb = (rgb * 255).round() / 255
    scale, shift = drift(20)
    network = Spoilt(
        rgb, depth, scale_kind=kind, **({"scale": scale, "shift": shift} if kind == "affine" else {})
    )
    made = DepthPredictor(network, name="spoilt", licence="none", config=MonoDepthConfig(max_side=240))
    video = (rgb * 255).round().byte().numpy()
    found = reconstruct(video, model=made, fps=12, output_size="model", split_shots=False, tries=0)
    ours = torch.from_numpy(np.stack([np.asarray(found.depth[t], np.float32) for t in range(20)]))
    assert found.diagnostics["evidence_windows"]
    assert abs_rel(ours, depth) < 0.03
    assert flicker(ours, depth) < 0.004
    assert found.scale_kind == ("metric" if kind == "metric" else "scale")
    if kind == "metric":
        torch.testing.assert_close((ours / depth).median(), torch.tensor(1.0), rtol=0.03, atol=0)
        path = np.linalg.norm(found.c2w[-1, :3, 3] - found.c2w[0, :3, 3])
        assert abs(path / float((world.c2w(76) - world.c2w(0))[:3, 3].norm()) - 1) < 0.05


@pytest.mark.slow
def test_a_still_camera_is_steady_and_said_to_be_relative(clip):
    rgb = clip[0][:1].repeat(12, 1, 1, 1)
    rgb[:, 0, 0] = torch.linspace(0, 1, 12)[:, None]  # so that the network can tell the pictures apart
    rgb = (rgb * 255).round() / 255
    depth = clip[1][:1].repeat(12, 1, 1)
    scale, shift = drift(12)
    made = predictor(Spoilt(rgb, depth, scale=scale, shift=shift), window_length=6, window_stride=3)
    video = (rgb * 255).round().byte().numpy()
    found = reconstruct(video, model=made, fps=12, output_size="model", split_shots=False, tries=0)
    ours = torch.from_numpy(np.stack([np.asarray(found.depth[t], np.float32) for t in range(12)]))
    assert flicker(ours, depth) < 0.005
    assert found.diagnostics["relative_windows"] == list(range(len(found.diagnostics["windows"])))
    assert any("tells nothing about depth" in remark for remark in judge_result(found).remarks)
