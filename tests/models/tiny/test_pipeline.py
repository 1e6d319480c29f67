import dataclasses

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.geometry.cameras import centred_intrinsics, project
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import inverse, transform
from geo4d.models.base import Predictor
from geo4d.models.tiny.calibration import Calibration, SpreadMap
from geo4d.models.tiny.pipeline import (
    LEAST_DISPARITY,
    TinyPipelineConfig,
    TinyPredictor,
    default_dtype,
    depth_from_disparity,
    intrinsics_from_rays,
    known_intrinsics,
    load,
)
from geo4d.models.tiny.weights import load_model
from geo4d.types import EvidenceMaps, Window
from tests.support.poses import se3_exp


def window(frames: int = 4, size: tuple[int, int] = (64, 96), index: int = 0) -> Window:
    rgb = torch.rand((frames, *size, 3), generator=torch.Generator().manual_seed(3))
    return Window(rgb, torch.arange(frames), torch.arange(frames) / 10.0, index, 10.0)


def test_it_is_a_predictor_and_its_answer_is_whole(predictor: TinyPredictor) -> None:
    assert isinstance(predictor, Predictor)
    asked = window()
    answer = predictor.predict(asked, seed=1)
    assert answer.size == asked.size
    for name, tensor in answer.tensors().items():
        assert torch.isfinite(tensor).all(), name
    assert answer.disparity is not None
    assert (answer.disparity >= 0).all()
    assert answer.point_uncertainty is not None
    assert (answer.point_uncertainty > 0).all()
    assert answer.ray_c2w is not None
    torch.testing.assert_close(answer.ray_c2w[0, :3, :3], torch.eye(3), rtol=1e-5, atol=1e-5)


def test_the_answer_is_a_function_of_window_seed_and_index(predictor: TinyPredictor) -> None:
    first = predictor.predict(window(), seed=1)
    again = predictor.predict(window(), seed=1)
    assert torch.equal(first.point_map, again.point_map)
    other_seed = predictor.predict(window(), seed=2)
    other_index = predictor.predict(window(index=1), seed=1)
    assert not torch.equal(first.point_map, other_seed.point_map)
    assert not torch.equal(first.point_map, other_index.point_map)


def test_evidence_is_used_unless_switched_off(predictor: TinyPredictor) -> None:
    asked = window()
    points = 1 + torch.rand(4, 30, 50, 3)
    evidence = EvidenceMaps(points=points, mask=torch.ones(4, 30, 50, dtype=torch.bool))
    without = predictor.predict(asked, seed=1)
    with_evidence = predictor.predict(asked, seed=1, evidence=evidence)
    assert not torch.equal(without.point_map, with_evidence.point_map)
    deaf = TinyPredictor(predictor.model, "", dataclasses.replace(predictor.config, use_evidence=False))
    assert torch.equal(deaf.predict(asked, seed=1, evidence=evidence).point_map, without.point_map)


def test_sky_is_far_in_the_answer_too(predictor: TinyPredictor) -> None:
    anywhere = dataclasses.replace(predictor.config, sky_disparity=10.0)
    loose = TinyPredictor(predictor.model, "", anywhere).predict(window(), seed=1)
    strict = predictor.predict(window(), seed=1)
    assert loose.sky is not None
    assert strict.sky is not None
    assert bool(loose.sky.any())
    assert int(strict.sky.sum()) < int(loose.sky.sum())
    assert bool((loose.sky | ~strict.sky).all())
    kept = loose.sky & ~strict.sky
    assert strict.disparity is not None
    assert bool((strict.disparity[kept] > 0).any())
    assert bool(strict.valid[kept].all())


def test_spreads_are_calibrated(predictor: TinyPredictor) -> None:
    raw = predictor.predict(window(), seed=1)
    model = predictor.model
    model.calibration = Calibration(disparity=SpreadMap((1.0,), (0.5,)))
    try:
        answer = predictor.predict(window(), seed=1)
    finally:
        model.calibration = Calibration()
    torch.testing.assert_close(answer.point_uncertainty, raw.point_uncertainty * 0.5)
    torch.testing.assert_close(answer.disparity_uncertainty, raw.disparity_uncertainty * 0.5)
    assert torch.equal(answer.point_map, raw.point_map)


@pytest.mark.parametrize("frames", [1, 2, 16, 17])
def test_any_number_of_frames(predictor: TinyPredictor, frames: int) -> None:
    assert predictor.predict(window(frames), seed=0).num_frames == frames


@pytest.mark.parametrize("source", [(480, 640), (1080, 1920), (1920, 1080), (64, 64), (10, 1000)])
def test_sizes_are_multiples_of_32_of_about_the_wanted_area(
    predictor: TinyPredictor, source: tuple[int, int]
) -> None:
    wide = TinyPredictor(predictor.model, "", TinyPipelineConfig())
    height, width = wide.size_for(source)
    assert height % 32 == 0
    assert width % 32 == 0
    if max(source) / min(source) < 4:
        assert 0.75 < height * width / (192 * 320) < 1.35
        assert abs(height / width / (source[0] / source[1]) - 1) < 0.25


def test_focal_length_comes_back_from_exact_rays() -> None:
    K = centred_intrinsics(torch.full((3,), 70.0), (64, 96))
    c2w = se3_exp(0.2 * torch.randn(3, 6))
    c2w[0] = torch.eye(4)
    small = centred_intrinsics(torch.full((3,), 70.0 / 8), (8, 12))
    rays = cameras_to_ray_map(small, c2w, (8, 12))
    torch.testing.assert_close(intrinsics_from_rays(rays, c2w, (64, 96)), K, rtol=1e-3, atol=1e-2)


def test_foreign_files_and_options_are_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="another model"):
        load_model(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="num_steps"):
        load(speed=3)
    with pytest.raises(ValueError, match="sampling steps"):
        TinyPipelineConfig(num_steps=0)


def test_the_size_of_the_window_is_the_size_of_the_network(predictor: TinyPredictor) -> None:
    # (96, 32) is not what size_for gives for a picture of 96x32: the plan decides, and nobody asks again.
    asked = window(size=(96, 32))
    assert predictor.size_for(asked.size) != asked.size
    assert predictor.predict(asked, seed=0).size == asked.size
    with pytest.raises(ValueError, match="multiples of 32, got 80x64"):
        predictor.predict(window(size=(64, 80)), seed=0)


def test_squeezed_pictures_state_unequal_focal_lengths(predictor: TinyPredictor) -> None:
    plain = predictor.predict(window(), seed=0)
    squeezed = predictor.predict(dataclasses.replace(window(), pixel_aspect=1.1), seed=0)
    for answer, aspect in ((plain, 1.0), (squeezed, 1.1)):
        assert answer.intrinsics is not None
        torch.testing.assert_close(
            answer.intrinsics[:, 1, 1], aspect * answer.intrinsics[:, 0, 0], rtol=1e-6, atol=0
        )


def test_focal_length_of_squeezed_pictures_comes_back_from_exact_rays() -> None:
    K = centred_intrinsics(torch.full((3,), 70.0), (64, 96))
    K[:, 1, 1] = 77.0
    c2w = se3_exp(0.1 * torch.randn(3, 6, generator=torch.Generator().manual_seed(0)))
    found = intrinsics_from_rays(cameras_to_ray_map(K, c2w, (64, 96)), c2w, (64, 96), 1.1)
    torch.testing.assert_close(found, K, rtol=1e-4, atol=1e-3)


def test_points_lie_on_the_rays_of_the_stated_cameras_at_the_depth_of_the_disparity(
    predictor: TinyPredictor,
) -> None:
    asked = dataclasses.replace(window(), intrinsics=centred_intrinsics(torch.full((4,), 120.0), (64, 96)))
    answer = predictor.predict(asked, seed=1)
    assert answer.point_map is not None
    assert answer.ray_c2w is not None
    assert answer.disparity is not None
    assert torch.equal(answer.intrinsics, asked.intrinsics)
    own = transform(inverse(answer.ray_c2w), answer.point_map)
    pixels, depth = project(own.flatten(1, 2), asked.intrinsics)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    truth = torch.stack([columns, rows], -1).reshape(1, -1, 2).expand(4, -1, -1)
    torch.testing.assert_close(pixels, truth, rtol=0, atol=2e-2)
    product = depth.reshape(answer.disparity.shape) * answer.disparity.clamp(min=LEAST_DISPARITY)
    torch.testing.assert_close(product, product.flatten()[0].expand_as(product), rtol=1e-3, atol=0)


def test_depth_takes_its_unit_from_the_point_map() -> None:
    disparity = torch.tensor([[[0.5, 0.25, 0.0, 1.0]]])
    depth = depth_from_disparity(disparity, torch.tensor([[[4.2, 8.0, -3.0, 2.0]]]))
    torch.testing.assert_close(depth, 2.0 / torch.tensor([[[0.5, 0.25, LEAST_DISPARITY, 1.0]]]))


def test_the_unit_is_found_at_the_size_of_the_point_map() -> None:
    disparity = torch.linspace(0.2, 1.0, 64).expand(1, 32, 64)
    own_depth = 3.0 / torch.nn.functional.avg_pool2d(disparity, 2)
    torch.testing.assert_close(depth_from_disparity(disparity, own_depth), 3.0 / disparity)


def test_given_intrinsics_win_over_those_from_motion_and_untrusted_ones_do_not_count() -> None:
    asked = window()
    evidence = EvidenceMaps(
        points=torch.ones(4, 16, 24, 3),
        mask=torch.ones(4, 16, 24, dtype=torch.bool),
        intrinsics=centred_intrinsics(torch.full((4,), 30.0), (16, 24)),
        camera_confidence=torch.ones(4),
    )
    found = known_intrinsics(asked, evidence)
    assert found is not None
    torch.testing.assert_close(found[0], centred_intrinsics(torch.tensor(120.0), (64, 96)))
    given = centred_intrinsics(torch.full((4,), 77.0), (64, 96))
    assert torch.equal(known_intrinsics(dataclasses.replace(asked, intrinsics=given), evidence), given)
    assert known_intrinsics(asked, dataclasses.replace(evidence, camera_confidence=torch.zeros(4))) is None
    assert known_intrinsics(asked, None) is None


def test_an_option_is_known_by_its_old_name_too(caplog) -> None:
    assert load(use_prior=False).info.evidence is None
    assert "use_prior is now called use_evidence" in caplog.text
    assert load().info.evidence == "motion"


@pytest.mark.parametrize(
    ("device", "gpu", "cpu", "dtype"),
    [
        ("cuda", True, False, "bfloat16"),
        ("cuda:0", False, True, "float32"),  # a card that only emulates bfloat16
        ("cpu", False, True, "bfloat16"),
        ("cpu", True, False, "float32"),
        ("mps", True, True, "float32"),
    ],
)
def test_types_by_what_the_device_computes_in(monkeypatch, device, gpu, cpu, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr("geo4d.models.tiny.pipeline.cpu_computes_bfloat16", lambda: cpu)
    assert default_dtype(device) == dtype
