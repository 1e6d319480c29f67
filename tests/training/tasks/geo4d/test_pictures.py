from dataclasses import replace

import torch

from geo4d.training.data import stack_clips
from geo4d.training.sources import as_float
from geo4d.training.tasks.geo4d.networks import FolderPlan, fresh_networks, load_networks
from geo4d.training.tasks.geo4d.pictures import PictureCoding, _pictures
from geo4d.training.tasks.geo4d.presets import smallest_config


def batch(source, frames: int = 2):
    clips = [as_float(replace(source, size=(64, 64))(i)) for i in range(2)]
    return stack_clips(clips, [torch.arange(frames)] * 2, [3, 4])


def test_the_codec_learns_colour_and_every_map(source) -> None:
    ours = batch(source)
    pictures, names = _pictures(ours)
    assert pictures.shape == (5 * 2 * 2, 3, 64, 64)
    assert names == ("colour", "point_map", "ray_direction", "ray_moment", "disparity")
    torch.testing.assert_close(pictures[:2], ours.rgb[:, 0])
    torch.manual_seed(0)
    networks = fresh_networks(smallest_config())
    task = PictureCoding(networks.vae, FolderPlan(networks, {"stage": "pictures"}, ()), [ours])
    assert not any("adaptor" in name for name in task.trained())
    optimiser = torch.optim.AdamW(task.trained().values(), 2e-3)
    losses = []
    for _ in range(14):
        loss, _ = task(ours)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    scores, panels = task.evaluate()
    assert set(scores) == {f"squared_{name}" for name in names}
    assert all(value > 0 for value in scores.values())
    assert panels["pictures"].shape == (3, 128, 5 * 64)


def test_errors_of_geometry_weigh_four_times_those_of_the_rest(source) -> None:
    """Slow twin of the loss, picture by picture."""
    ours = batch(source)
    torch.manual_seed(0)
    networks = fresh_networks(smallest_config())
    task = PictureCoding(networks.vae, FolderPlan(networks, {"stage": "pictures"}, ()))
    pictures, names = _pictures(ours)
    decoded: list[torch.Tensor] = []
    decode = task.vae.decode
    task.vae.decode = lambda z: decoded.append(decode(z)) or decoded[-1]  # type: ignore[method-assign]
    with torch.no_grad():
        _, parts = task(ours)
    total = 0.0
    for i, (seen, wanted) in enumerate(zip(decoded[0], pictures, strict=True)):
        weight = {"point_map": 4, "disparity": 4}.get(names[i // 4], 1) / (11 / 5)
        total += weight * float((seen - wanted).square().mean()) / 20
    assert abs(float(parts["squared"]) - total) < 1e-4 * total


def test_the_latents_that_diffusion_sees_have_a_mean_square_of_one(source, tmp_path) -> None:
    torch.manual_seed(0)
    networks = fresh_networks(smallest_config())
    task = PictureCoding(networks.vae, FolderPlan(networks, {"stage": "pictures"}, ()))
    ours = batch(source)
    with torch.no_grad():
        square = task.vae.moments(_pictures(ours)[0]).chunk(2, 1)[0].square().mean()
        task(ours)
    torch.testing.assert_close(task.latent_square, 0.95 + 0.05 * square)
    task.latent_square.copy_(square)
    task.export(tmp_path / "w")
    back = load_networks(tmp_path / "w", smallest_config())
    assert abs(float(square) * back.config.latent_scale**2 - 1) < 1e-4
    assert torch.equal(back.point_vae.encoder.conv_in.weight, task.vae.encoder.conv_in.weight)
