"""Geo4D's light decoder and one-step student: what they are trained towards, and what their folders load as."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geo4d.apps.cli import main
from geo4d.errors import CheckpointError
from geo4d.models.geo4d.noise import WindowNoise
from geo4d.models.geo4d.pipeline import load
from geo4d.models.light_decoder import LightDecoder
from geo4d.training.data import stack_clips
from geo4d.training.full import window_maps
from geo4d.training.plans import StageRun
from geo4d.training.recipes import find_preset, find_stage
from geo4d.training.sources import as_float
from geo4d.training.stages import run_stage
from geo4d.training.tasks.geo4d.distilled import Geo4DOneStep, LightPointDecoding, point_scores
from geo4d.training.tasks.geo4d.networks import FolderPlan, fresh_networks, load_networks
from geo4d.training.tasks.geo4d.presets import smallest_config
from geo4d.training.tasks.tiny.tasks import sample_noise
from tests.support.depths import as_window
from tests.training.conftest import PlaneSource

EVERYTHING = ("disparity", "points", "rays")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "weights"
    networks = fresh_networks(smallest_config())
    torch.nn.init.normal_(networks.unet.conv_out.weight, std=0.05)  # a fresh network answers with nothing
    FolderPlan(networks, {"stage": "s", "stages": ["s"]}, EVERYTHING, {"height": 64, "width": 64}).write(
        path, {}
    )
    return path


def batch(frames: int = 2):
    clips = [as_float(PlaneSource((64, 64))(i)) for i in range(2)]
    return stack_clips(clips, [torch.arange(frames)] * 2, [3, 4])


def run(folder: Path, out: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One step of a stage of the preset, on clips without the renderer."""
    from geo4d.training.plans import Stream

    monkeypatch.setattr(Stream, "source", lambda self, seed: PlaneSource((64, 64), 8))
    loop = replace(find_stage("geo4d", "smallest", stage)[1].loop, num_steps=1)
    given = StageRun(out, start=folder, workers=0, num_validation=0, device="cpu")
    run_stage("geo4d", "smallest", stage, given, loop)
    return out / "weights"


def test_the_light_decoder_is_trained_towards_its_teacher_and_the_truth(folder) -> None:
    networks = load_networks(folder, smallest_config())
    light = LightDecoder(find_preset("geo4d", "smallest").light_decoder)
    task = LightPointDecoding(
        light, networks.point_vae, FolderPlan(networks, {}, ()), latent_scale=1.0, seed=1
    )
    ours = batch()
    ours.depth[:, :, 10:20, 10:20] = torch.nan
    loss, parts = task(ours)
    points, known, z = task._maps(ours)
    assert torch.equal(known, ~torch.isnan(ours.depth).flatten(0, 1))
    assert torch.equal(points, window_maps(ours)[0]["point_map"].flatten(0, 1))
    assert float(loss.detach()) == pytest.approx(
        float((parts["teacher"] + 0.1 * parts["spread"] + 0.5 * parts["truth"]).detach()), rel=1e-6
    )
    loss.backward()
    assert all(value.grad is not None for value in light.parameters())
    assert all(value.grad is None for value in networks.point_vae.parameters())
    # Only coordinates where depth is known count against the truth.
    with torch.no_grad():
        exact = LightPointDecoding(light, networks.point_vae, FolderPlan(networks, {}, ()), latent_scale=1e9)
        seen = exact._light(z)[:, :3]
    slow = [
        float((seen[n, :, r, c] - points[n, :, r, c]).abs().mean())
        for n, r, c in torch.nonzero(known).tolist()
    ]
    assert float(exact(ours)[1]["truth"].detach()) == pytest.approx(sum(slow) / len(slow), rel=1e-4)


def test_scores_of_points_are_error_and_its_steps() -> None:
    truth, known = torch.zeros(3, 3, 1, 2), torch.tensor([[[True, True]], [[True, False]], [[True, True]]])
    points = torch.zeros(3, 3, 1, 2)
    points[1, :, 0, 0], points[1, :, 0, 1], points[2, :, 0, 0] = 0.3, 99.0, 0.1
    assert point_scores(points, truth, known) == pytest.approx({"points": 0.08, "change": (0.3 + 0.2) / 2})


def test_the_student_is_trained_towards_five_steps_from_the_same_noise(folder) -> None:
    networks, teachers = (load_networks(folder, smallest_config()) for _ in range(2))
    rest = (networks.vae, networks.constants, networks.config, EVERYTHING)
    task = Geo4DOneStep(networks.unet.requires_grad_(True), teachers.unet, *rest, seed=2)
    ours = batch()
    loss, _ = task(ours)
    # The predictor's own sampler, on the same latents and noise.
    with torch.no_grad():
        colour = task.encode(ours.rgb, ours.samples)
        noise, _ = sample_noise(ours.samples, (16, *colour.shape[2:]), 2, 0.0)
        noises = [WindowNoise(torch.zeros(2, 4, 8, 8), one) for one in noise]
        answers = []
        for steps in (1, 5):
            predictor = load(weights=folder, device="cpu", dtype="float32", num_steps=steps)
            context = torch.cat([task.text, task.image], dim=1).expand(2, -1, -1)
            fps = (ours.fps + 1e-3).floor()
            answers.append(predictor.sample(colour, [context], fps, noises))
    wanted = float((answers[0] - answers[1]).square().mean())
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-3)
    loss.backward()
    torch.optim.AdamW(task.trained().values(), 1e-4).step()
    with torch.no_grad():
        assert float(task(ours)[0]) < wanted


def test_folders_of_both_stages_load_and_say_what_they_are(
    folder, tmp_path: Path, monkeypatch, capsys
) -> None:
    with pytest.raises(
        CheckpointError, match=r"expected a light decoder .*train light-decoder --family geo4d"
    ):
        load(weights=folder, device="cpu", decoder="light")
    light = run(folder, tmp_path / "light", "light-decoder", monkeypatch)
    window = as_window(torch.rand(4, 64, 64, 3))
    full, small = (load(weights=light, device="cpu", decoder=name) for name in ("full", "light"))
    assert full.options.num_steps == small.options.num_steps == 5
    found = [one.predict(window, seed=1) for one in (full, small)]
    assert not torch.equal(found[0].point_map, found[1].point_map)
    assert torch.equal(found[0].disparity, found[1].disparity)
    assert found[1].provenance["options"]["decoder"] == "light"
    student = run(light, tmp_path / "student", "one-step", monkeypatch)
    config = json.loads((student / "config.json").read_text())
    assert config["options"] == {"height": 64, "width": 64, "num_steps": 1}
    one = load(weights=student, device="cpu", decoder="light")
    calls = []
    one.unet.register_forward_hook(lambda *_: calls.append(1))
    assert one.predict(window, seed=1).provenance["options"]["num_steps"] == 1
    assert len(calls) == 1
    assert main(["models", "verify", str(student)]) == 0
    assert "light decoder" in capsys.readouterr().out
    assert load_networks(student, smallest_config()).light is not None
    # The decoder's own stage leaves the light one out: it is not its teacher any more.
    again = run(student, tmp_path / "decoder", "decoder", monkeypatch)
    assert load_networks(again, smallest_config()).light is None
