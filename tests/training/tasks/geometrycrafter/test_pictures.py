"""The autoencoder's stage: what it is shown, what it minimises, and what it leaves behind."""

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from geo4d.models.geometrycrafter.embedding import build_image_encoder
from geo4d.models.geometrycrafter.vae import ImageVAE
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.maps import frames_seen
from geo4d.training.tasks.geometrycrafter.networks import load_image_vae, smallest_sizes
from geo4d.training.tasks.geometrycrafter.pictures import (
    DISPARITY_WEIGHT,
    KL_WEIGHT,
    MEMORY,
    PictureCoding,
    _pictures,
)
from geo4d.training.tasks.geometrycrafter.presets import find_stage
from geo4d.training.tasks.geometrycrafter.stages import StageRun, run_stage
from geo4d.training.tasks.geometrycrafter.windows import Windows
from geo4d.training.tasks.tiny.tasks import sample_noise
from tests.support.batches import take
from tests.support.trained import batches


@pytest.fixture
def windows(order) -> Windows:
    return take(batches(order, (2, 2))(0, 0, 1), 1)[0]


def coding(validation: list[Windows] | None = None) -> PictureCoding:
    torch.manual_seed(0)
    sizes = smallest_sizes()
    vae = ImageVAE(sizes.image_vae, with_decoder=True)
    plan = FolderPlan(None, {"stage": "pictures"})
    encoder = build_image_encoder(sizes.image_encoder)
    return PictureCoding(vae, (encoder, sizes.image_encoder), plan, validation, seed=4)


def test_half_of_the_pictures_are_colour_and_half_disparity(windows: Windows) -> None:
    """Of every window its colours, then its disparity pictures: bright where near, the same in all three channels."""
    pictures = _pictures(windows)
    frames = windows.num_frames
    assert len(pictures) == 2 * windows.rgb.shape[0] * frames
    for number, (rgb, depth) in enumerate(zip(windows.rgb, windows.depth, strict=True)):
        colour, disparity = pictures[2 * frames * number :][: 2 * frames].split(frames)
        assert torch.equal(colour, rgb)
        assert torch.equal(disparity[:, 0], disparity[:, 2])
        known = torch.isfinite(depth)
        from_far = depth[known].argsort(descending=True)
        by_depth = disparity[:, 0][known][from_far].diff()
        assert by_depth.min() > -1e-4
        assert disparity.abs().max() <= 1


def test_some_frames_of_a_window_are_shown_as_the_window_has_them(windows: Windows) -> None:
    every = _pictures(windows).unflatten(0, (len(windows.names), 2, windows.num_frames))
    some = _pictures(windows, 1).unflatten(0, (len(windows.names), 2, 1))
    for number, sample in enumerate(windows.samples.tolist()):
        assert torch.equal(some[number], every[number][:, frames_seen(sample, windows.num_frames, 1)])


def test_the_loss_is_its_parts_and_the_noise_that_of_the_sample(windows: Windows) -> None:
    task = coding().eval()
    with torch.no_grad():
        loss, parts = task(windows)
        again, _ = task(windows)
        other, _ = task(replace(windows, samples=windows.samples + 1))
        pictures = _pictures(windows)
        mean, log_variance = task.image_vae.encode_moments(pictures).float().chunk(2, dim=1)
    assert torch.equal(loss, again)
    assert not torch.equal(loss, other)
    torch.testing.assert_close(
        loss, parts["squared"] + 0.5 * parts["absolute"] + KL_WEIGHT * parts["divergence"]
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    wanted = torch.distributions.kl_divergence(posterior, normal).mean()
    torch.testing.assert_close(parts["divergence"], wanted, rtol=1e-4, atol=1e-5)


def test_errors_of_disparity_weigh_more(windows: Windows) -> None:
    task = coding().eval()
    with torch.no_grad():
        _, parts = task(windows)
        pictures = _pictures(windows)
        moments = task.image_vae.encode_moments(pictures).float()
        noise, _ = sample_noise(windows.samples, (2 * windows.num_frames, *moments[:, :4].shape[1:]), 4, 0.0)
        mean, log_variance = moments.chunk(2, dim=1)
        latent = mean + (0.5 * log_variance).exp() * noise.flatten(0, 1)
        decoded = task.image_vae.decode(latent, windows.num_frames)
    colour, disparity = (decoded - pictures).square().unflatten(0, (2, 2, -1)).mean((0, 2, 3, 4, 5))
    wanted = (colour + DISPARITY_WEIGHT * disparity) / (1 + DISPARITY_WEIGHT)
    assert float(parts["squared"]) == pytest.approx(float(wanted), rel=1e-4)


def test_the_stage_goes_on_from_the_folder_it_is_given(start, tmp_path) -> None:
    run = StageRun(tmp_path / "run", start=start, num_validation=0, device="cpu")
    loop = replace(find_stage("smallest", "pictures")[1].loop, num_steps=1, learning_rate=0.0, ema_decay=0.0)
    run_stage("smallest", "pictures", run, loop)
    before, after = (load_image_vae(folder).state_dict() for folder in (start, tmp_path / "run/weights"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run/weights/image_encoder/config.json").exists()


def test_steps_lower_the_loss_and_leave_the_frame_encoder(windows: Windows) -> None:
    task = coding()
    assert all(not name.startswith("_image_encoder") for name in task.state_dict())
    optimiser = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss, _ = task(windows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


def test_the_spread_of_the_latents_is_followed_in_training_alone(windows: Windows) -> None:
    task = coding()
    with torch.no_grad():
        mean = task.image_vae.encode_moments(_pictures(windows)).float().chunk(2, dim=1)[0]
        task(windows)
    followed = MEMORY + (1 - MEMORY) * mean.square().mean()
    torch.testing.assert_close(task.latent_square, followed)
    task.eval()
    with torch.no_grad():
        task(windows)
    torch.testing.assert_close(task.latent_square, followed)


def test_what_is_exported_scales_latents_to_one(windows: Windows, tmp_path) -> None:
    task = coding()
    task.latent_square.fill_(4.0)
    task.export(tmp_path)
    assert json.loads((tmp_path / "vae/config.json").read_text())["scaling_factor"] == pytest.approx(0.5)
    loaded = load_image_vae(tmp_path)
    with torch.no_grad():
        ours = task.image_vae.encode_moments(_pictures(windows))
        torch.testing.assert_close(loaded.encode_moments(_pictures(windows)), ours)


def test_validation_is_the_squared_error_of_what_comes_back(windows: Windows) -> None:
    task = coding([windows, windows]).eval()
    with torch.no_grad():
        scores, panels = task.evaluate()
        pictures = _pictures(windows)
        decoded = task.image_vae.decode(task.image_vae.encode(pictures), windows.num_frames)
    squares = (decoded - pictures).square().unflatten(0, (2, 2, windows.num_frames))  # window, kind, frame
    for kind, name in enumerate(("squared_colour", "squared_disparity")):
        assert scores[name] == pytest.approx(float(squares[:, kind].mean()), rel=1e-4)
    height, width = windows.rgb.shape[-2:]
    assert panels["pictures"].shape == (3, height, 4 * width)
    torch.testing.assert_close(panels["pictures"][:, :, :width], (pictures[0] + 1) / 2)
    assert coding().evaluate() == ({}, {})
