"""What the tiny model is trained on, against answers that are known: of the truth itself, of a still world."""

import math
from dataclasses import fields, replace

import pytest
import torch

from geo4d.diffusion.denoiser import v_target
from geo4d.models.tiny.codec import LatentCodec
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.depth import DepthMaps
from geo4d.models.tiny.modalities import normalise
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import load_model
from geo4d.training.data import Batch, stack_clips
from geo4d.training.sources import as_float
from geo4d.training.tasks.tiny.batches import EvidenceDropout
from geo4d.training.tasks.tiny.tasks import (
    DiffusionConfig,
    TinyDepth,
    TinyDiffusion,
    depth_loss,
    evaluate_model,
    fit_codec,
    point_error,
    sample_noise,
)


@pytest.fixture
def batch(source) -> Batch:
    return stack_clips([as_float(source(i)) for i in range(2)], [torch.arange(4)] * 2, [0, 1])


@pytest.fixture
def model(source) -> TinyModel:
    torch.manual_seed(0)
    made = TinyModel(smallest_preset())
    fit_codec(made.codec, source, 4)
    return made


def test_noise_is_a_function_of_seed_and_sample_alone() -> None:
    together, times = sample_noise(torch.tensor([5, 9, 2]), (3, 4), 1, 0.5)
    alone, time = sample_noise(torch.tensor([9]), (3, 4), 1, 0.5)
    assert torch.equal(together[1], alone[0])
    assert times[1] == time[0]
    other, _ = sample_noise(torch.tensor([9]), (3, 4), 2, 0.5)
    assert not torch.equal(alone, other)
    many, times = sample_noise(torch.arange(2000), (8,), 0, 0.7)
    assert abs(float(many.mean())) < 0.03
    assert abs(float(many.std()) - 1) < 0.03
    assert abs(float((times == times.max()).float().mean()) - 0.7) < 0.04


def depth_maps(disparity: torch.Tensor, sky: torch.Tensor, sigma: float = 0.01) -> DepthMaps:
    logit = torch.where(sky, 30.0, -30.0)[:, :, None]
    return DepthMaps(disparity, torch.full_like(disparity, sigma), logit)


def truth_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    maps, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
    return maps.disparity, ~torch.isfinite(batch.depth)


def test_the_truth_has_the_least_loss(batch: Batch) -> None:
    disparity, sky = truth_of(batch)
    best, parts = depth_loss(depth_maps(disparity, sky), disparity, sky)
    for name in ("logarithm", "sky_disparity", "gradient", "logarithm_gradient", "steady"):
        assert float(parts[name]) == pytest.approx(0, abs=1e-6), name
    assert float(parts["sky"]) < 1e-6
    # a Laplace density of spread s, at its peak: log(2 s)
    assert float(best) == pytest.approx(sum(float(value) for value in parts.values()))
    generator = torch.Generator().manual_seed(0)
    worse = disparity + 0.05 * torch.randn(disparity.shape, generator=generator)
    assert depth_loss(depth_maps(worse, sky), disparity, sky)[0] > best + 0.05
    assert depth_loss(depth_maps(disparity, ~sky), disparity, sky)[0] > best + 1


def test_flicker_of_a_still_world_is_what_the_steady_part_sees(batch: Batch) -> None:
    disparity, sky = truth_of(batch)
    disparity = disparity[:, :1].expand(-1, 4, -1, -1, -1).contiguous()
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[None, :, None, None, None]
    flicker = disparity + 0.02 * sign
    shifted = disparity + 0.02
    steady = [float(depth_loss(depth_maps(d, sky), disparity, sky)[1]["steady"]) for d in (shifted, flicker)]
    assert steady[0] == pytest.approx(0, abs=1e-6)
    assert steady[1] > 0.01


def test_what_the_sky_hides_counts_in_no_part_of_surfaces(batch: Batch) -> None:
    disparity, sky = truth_of(batch)
    invented = torch.where(sky[:, :, None], disparity + 0.3, disparity)
    before, after = (depth_loss(depth_maps(d, sky), disparity, sky)[1] for d in (disparity, invented))
    assert after["disparity"] == pytest.approx(float(before["disparity"]))
    assert float(after["sky_disparity"]) == pytest.approx(0.3 * float(sky.float().mean()), rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_true_answer_costs_nothing(model: TinyModel, batch: Batch, share: float) -> None:
    """v of the true latent: zero where latents are compared, and where the answer at pure noise is."""
    task = TinyDiffusion(model, DiffusionConfig(terminal_share=share))
    maps, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
    latent = model.codec.encode(maps)
    noise, timestep = sample_noise(batch.samples, tuple(latent.shape[1:]), 0, share)
    target = v_target(latent, noise, timestep, model.alphas_cumprod)
    terminal = timestep == task.last_timestep
    assert bool(terminal.all()) == (share == 1.0)
    loss, parts = task._loss(target, target, latent, maps, terminal)
    main = "latent" if share else "denoising"
    assert float(parts[main]) == pytest.approx(0, abs=1e-4)
    wrong, _ = task._loss(target + 0.5, target, latent, maps, terminal)
    assert float(wrong) > float(loss) + 0.01


def test_only_the_chosen_modalities_count(model: TinyModel) -> None:
    task = TinyDiffusion(model, DiffusionConfig(modalities=("points",), point_weight=2.0))
    part = model.config.channels("points")
    weight = task.weight[:, 0, 0]
    assert float(weight[part].max()) == pytest.approx(2.0)
    assert float(weight[part].min()) >= 0.2 - 1e-6
    others = torch.ones(len(weight), dtype=torch.bool)
    others[part] = False
    assert not weight[others].any()
    assert not any(parameter.requires_grad for parameter in task.model.depth.parameters())


def test_a_step_of_either_task_changes_its_own_network_alone(model: TinyModel, batch: Batch) -> None:
    for task, own, other in (
        (TinyDiffusion(model, DiffusionConfig()), model.network, model.depth),
        (TinyDepth(model), model.depth, model.network),
    ):
        for module in (own, other):
            module.requires_grad_(module is own)
        task.zero_grad(set_to_none=True)
        loss, parts = task(batch)
        assert math.isfinite(float(loss))
        assert parts
        loss.backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in own.parameters())
        assert all(p.grad is None for p in other.parameters())


def test_depth_is_judged_with_evidence_without_and_against_the_template(
    model: TinyModel, batch: Batch, tmp_path
) -> None:
    task = TinyDepth(model, [batch], EvidenceDropout())
    with torch.no_grad():
        scores, panels = task.evaluate()
    names = {f"{score}{of}" for score in ("abs_rel", "delta") for of in ("", "_image_only", "_template")}
    assert set(scores) == names
    assert list(panels) == ["window_0"]
    task.export(tmp_path)
    loaded = load_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded.codec.template, model.codec.template)


def test_the_template_is_scored_as_the_mean_map_it_is(model: TinyModel, batch: Batch) -> None:
    with torch.no_grad():
        before, _ = evaluate_model(model, [batch])
        maps, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
        size = model.codec.template.shape[-2:]
        model.codec.template.copy_(
            torch.nn.functional.interpolate(maps.disparity[0, :1], size, mode="bilinear")[0, 0]
        )
        one = replace(batch, **{field.name: getattr(batch, field.name)[:1] for field in fields(batch)})
        after, _ = evaluate_model(model, [one])
    assert after["abs_rel_template"] < 0.02
    assert before["abs_rel_template"] > 2 * after["abs_rel_template"]


def test_the_error_of_points_is_their_distance() -> None:
    truth = torch.zeros(2, 3, 3, 4, 5)
    off = truth.clone()
    off[1, :, 0], off[1, :, 1] = 3, 4
    assert point_error(off, truth).tolist() == [0.0, 5.0]


def test_a_codec_that_was_fitted_gives_its_clips_back(source, batch: Batch) -> None:
    codec = LatentCodec(smallest_preset())
    maps, _ = normalise(batch.depth, batch.intrinsics, batch.c2w)
    fit_codec(codec, source, 4)
    back = codec.decode(codec.encode(maps))
    spread = float(maps.disparity.std())
    assert float((back.disparity - maps.disparity).abs().mean()) < 0.25 * spread
    torch.testing.assert_close(codec.encode(maps).std(), torch.tensor(1.0), rtol=0.5, atol=0)
