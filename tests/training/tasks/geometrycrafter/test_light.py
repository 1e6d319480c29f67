"""The light decoder of GeometryCrafter: its losses, its stage, and what loads it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.apps.cli import main
from geo4d.errors import CheckpointError
from geo4d.models.base import load_predictor
from geo4d.models.geometrycrafter.decode import DecodedMaps
from geo4d.models.geometrycrafter.weights import LIGHT_DECODER
from geo4d.models.trained import TRAINED
from geo4d.training.loop import train
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.light import LightDecoding
from geo4d.training.tasks.geometrycrafter.losses import LightWeights, change_loss, light_losses
from geo4d.training.tasks.geometrycrafter.networks import (
    FrozenNetworks,
    fresh_light_decoder,
    load_image_vae,
    load_light_decoder,
    load_point_map_vae,
    smallest_sizes,
)
from geo4d.training.tasks.geometrycrafter.presets import find_stage
from geo4d.training.tasks.geometrycrafter.stages import StageRun, run_stage
from geo4d.types import Window
from tests.support.depths import as_window
from tests.support.trained import LOOP, batches, losses
from tests.training.tasks.geometrycrafter.test_losses import holes, maps, pixels, slow_mean

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def light_task(start: Path) -> LightDecoding:
    torch.manual_seed(1)
    return LightDecoding(
        fresh_light_decoder(smallest_sizes().light_decoder), load_point_map_vae(start),
        FrozenNetworks(load_image_vae(start)), FolderPlan(start, {"stage": "light-decoder", "prior": "tiny"}),
        weights=LightWeights(alphas=(2, 4)),
    )  # fmt: skip


def window(frames: int = 3) -> Window:
    return as_window(torch.rand(frames, 64, 64, 3, generator=torch.Generator().manual_seed(0)))


def test_change_is_the_step_of_the_error_from_frame_to_frame_within_a_clip() -> None:
    a, b, valid = maps(0, 4).log_depth, maps(1, 4).log_depth, holes(2, 4)
    wanted = [
        abs(float(a[t + 1, r, c] - b[t + 1, r, c]) - float(a[t, r, c] - b[t, r, c]))
        for t, r, c in pixels(valid)
        if t % 2 == 0 and valid[t + 1, r, c]
    ]
    assert float(change_loss(a, b, valid, 2)) == pytest.approx(slow_mean(wanted), rel=1e-12)
    assert float(change_loss(a, b, valid, 1)) == 0.0


def test_the_loss_is_the_weighted_sum_of_its_parts_and_asks_the_teacher_where_it_sees_a_surface() -> None:
    predicted, teacher, truth, valid = maps(0), maps(1), maps(2), holes(3)
    weights = LightWeights(truth=0.3, theta=2.0, mask=0.4, patches=0.5, change=0.6, alphas=(2,))
    total, parts = light_losses(predicted, teacher, truth.theta, truth.log_depth, valid, 2, weights)
    sure = [(t, r, c) for t, r, c in pixels(teacher.mask > 0)]
    slow = slow_mean([abs(float(predicted.log_depth[i] - teacher.log_depth[i])) for i in sure])
    assert float(parts["log_depth"]) == pytest.approx(slow, rel=1e-12)
    slow = slow_mean([abs(float(predicted.theta[i] - truth.theta[i])) for i in pixels(valid)])
    assert float(parts["true_theta"]) == pytest.approx(slow, rel=1e-12)
    both = zip(predicted.mask.flatten(), teacher.mask.flatten(), strict=True)
    everywhere = [(float(a) - float(b)) ** 2 for a, b in both]
    assert float(parts["mask"]) == pytest.approx(slow_mean(everywhere), rel=1e-12)
    p = {name: float(value) for name, value in parts.items()}
    wanted = p["log_depth"] + 2 * p["theta"] + 0.4 * p["mask"] + 0.5 * p["patches"] + 0.6 * p["change"]
    wanted += 0.3 * (
        p["true_log_depth"] + 2 * p["true_theta"] + 0.4 * p["true_mask"] + 0.6 * p["true_change"]
    )
    assert float(total) == pytest.approx(wanted, rel=1e-12)


def test_a_decoder_that_is_its_teacher_and_right_has_no_loss() -> None:
    found, valid = maps(0), torch.ones(2, 7, 10, dtype=torch.bool)
    found = DecodedMaps(found.theta, found.log_depth, torch.ones_like(found.mask))
    total, _ = light_losses(found, found, found.theta, found.log_depth, valid, 2, LightWeights(alphas=(2,)))
    assert float(total) == 0.0


def test_the_stage_goes_on_exactly_and_its_folder_is_a_predictor_with_either_decoder(
    start, order, tmp_path: Path, capsys
) -> None:
    frames = batches(order, (2, 2))
    train(light_task(start), frames, LOOP, tmp_path / "whole", device="cpu")
    train(light_task(start), frames, replace(LOOP, num_steps=2), tmp_path / "cut", device="cpu")
    train(light_task(start), frames, LOOP, tmp_path / "cut", resume=True, device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    weights = tmp_path / "cut/weights"
    options = {"weights": weights, "device": "cpu", "window_length": 3, "overlap": 1, "max_side": 64}
    full, light = (load_predictor("geometrycrafter", decoder=name, **options) for name in ("full", "light"))
    found = {name: one.predict(window(), seed=0) for name, one in (("full", full), ("light", light))}
    assert found["light"].provenance["decoder"] == "light"
    assert full.info.weights_sha256 != light.info.weights_sha256
    assert not torch.equal(found["full"].point_map, found["light"].point_map)
    # What is decoded is what the trained decoder makes of the latents that the full one saw.
    latents = found["full"].carry["latents"]
    decoder = load_light_decoder(weights)
    with torch.no_grad():
        expected = torch.cat(decoder(latents / load_image_vae(start).config.scaling_factor, 3), 1)
    parts = light.system.iter_decode(latents, (64, 64))
    seen = torch.cat([torch.stack([m.theta, m.log_depth, m.mask], 1) for m in parts])
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    assert light.memory_bytes((64, 64)) < full.memory_bytes((64, 64))
    assert main(["models", "verify", str(weights)]) == 0
    assert "light decoder" in capsys.readouterr().out
    file = weights / LIGHT_DECODER / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="recorded when it was trained"):
        load_predictor("geometrycrafter", decoder="light", **options)


def test_a_folder_without_one_says_how_to_make_it(start) -> None:
    with pytest.raises(CheckpointError, match=r"expected a light decoder .*geo4d train light-decoder"):
        load_predictor("geometrycrafter", weights=start, device="cpu", decoder="light")


def test_the_stage_of_the_preset_keeps_what_the_folder_says_and_a_new_teacher_drops_it(
    start, tmp_path: Path
) -> None:
    loop = replace(find_stage("smallest", "light-decoder")[1].loop, num_steps=1, batch=1)
    run = StageRun(tmp_path / "light", start=start, num_validation=0, device="cpu")
    run_stage("smallest", "light-decoder", run, loop)
    weights = tmp_path / "light/weights"
    record = json.loads((weights / TRAINED).read_text())
    assert record["stage"] == "light-decoder"
    assert record["options"] == {"window_length": 4, "overlap": 1, "max_side": 64}
    assert record["prior"] == "tiny"
    assert (weights / LIGHT_DECODER).is_dir()
    loop = replace(find_stage("smallest", "maps")[1].loop, num_steps=1, batch=1)
    run = StageRun(tmp_path / "maps", start=weights, num_validation=0, device="cpu")
    run_stage("smallest", "maps", run, loop)
    assert not (tmp_path / "maps/weights" / LIGHT_DECODER).exists()
    assert (tmp_path / "maps/weights/unet_diff").is_dir()
