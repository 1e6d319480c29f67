"""The one-step student: what it is trained towards, and what its folder says."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.errors import InputError
from geo4d.models.base import load_predictor
from geo4d.models.trained import TRAINED
from geo4d.training.tasks.geometrycrafter.denoising import NoiseConfig, encode_conditions
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.networks import (
    FrozenNetworks,
    load_image_encoder,
    load_image_vae,
    load_point_map_vae,
    load_unet,
)
from geo4d.training.tasks.geometrycrafter.one_step import OneStep
from geo4d.training.tasks.geometrycrafter.presets import find_stage
from geo4d.training.tasks.geometrycrafter.stages import StageRun, run_stage
from tests.support.trained import batches
from tests.training.tasks.geometrycrafter.test_light import window

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def one_step_task(start: Path) -> OneStep:
    frozen = FrozenNetworks(load_image_vae(start), load_image_encoder(start), load_point_map_vae(start))
    teacher, _ = load_unet(start, "diff")
    with torch.no_grad():  # a fresh network answers with almost nothing
        teacher.conv_out.weight.mul_(3)
    return OneStep(*load_unet(start, "diff"), teacher, frozen, FolderPlan(start), noise=NoiseConfig(seed=3))


def by_hand(task: OneStep, unet, one, noise: torch.Tensor, levels: list[float]) -> torch.Tensor:
    """Euler steps through these noise levels, written out."""
    ids = torch.tensor([[7.0, 127.0, 0.02]])
    x = noise * (levels[0] ** 2 + 1) ** 0.5
    for level, following in zip(levels, [*levels[1:], 0.0], strict=True):
        root = (level**2 + 1) ** 0.5
        seen = torch.cat([x / root, one.video_latents, one.prior_latents], 1)[None]
        v = unet(seen, torch.tensor([0.25 * torch.tensor(level).log()]), one.tokens[None], ids)[0]
        clean = x / root**2 - level / root * v
        x = x + (x - clean) / level * (following - level)
    return x


def test_the_loss_is_the_distance_of_one_step_to_five_from_the_same_noise(start, order) -> None:
    task = one_step_task(start)
    batch = next(batches(order, (2, 2), prior=True)(0, 0, 1))
    loss, _ = task(batch)
    ramp = [(700 ** (1 / 7) + k / 4 * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7 for k in range(5)]
    noises, _ = task._draw(batch.samples, (2, 4, 8, 8))
    errors = []
    with torch.no_grad():
        for one, noise in zip(encode_conditions(batch, task.frozen), noises, strict=True):
            wanted = by_hand(task, task.teacher, one, noise, ramp)
            errors.append((by_hand(task, task.unet, one, noise, [700.0]) - wanted).square().mean())
    first = float(loss.detach())
    assert first == pytest.approx(float(torch.stack(errors).mean()), rel=1e-3)
    loss.backward()
    torch.optim.AdamW(task.trained().values(), 1e-4).step()
    with torch.no_grad():
        assert float(task(batch)[0]) < first
    assert all(value.grad is not None for value in task.trained().values())
    assert all(value.grad is None for value in task.teacher.parameters())


def test_the_folder_of_the_stage_takes_one_step_and_says_so(start, tmp_path: Path, caplog) -> None:
    loop = replace(find_stage("smallest", "one-step")[1].loop, num_steps=1, batch=1)
    run = StageRun(tmp_path, start=start, num_validation=0, device="cpu")
    run_stage("smallest", "one-step", run, loop)
    weights = tmp_path / "weights"
    record = json.loads((weights / TRAINED).read_text())
    assert record["options"] == {"window_length": 4, "overlap": 1, "max_side": 64, "num_steps": 1}
    student = load_predictor("geometrycrafter", weights=weights, device="cpu")
    calls = []
    student.system.unet.register_forward_hook(lambda *_: calls.append(1))
    found = student.predict(window(), seed=0)
    assert len(calls) == 1
    assert found.provenance["num_steps"] == student.info.config["num_steps"] == 1
    before = load_predictor("geometrycrafter", weights=start, device="cpu")
    assert before.predict(window(), seed=0).provenance["num_steps"] == 5
    with caplog.at_level(logging.WARNING):
        load_predictor("geometrycrafter", weights=weights, device="cpu", num_steps=5)
    assert "trained to take 1 step(s) and is asked for 5" in caplog.text


def test_the_deterministic_network_has_no_student(start, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes one step already"):
        run_stage("smallest", "one-step", StageRun(tmp_path, start=start, variant="determ", device="cpu"))
