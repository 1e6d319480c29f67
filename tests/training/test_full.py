"""The full-size tasks: targets, shapes at full width on meta tensors, real steps when small."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.models.geo4d.conditioning import ContextConstants
from geo4d.models.geo4d.config import full, small
from geo4d.models.geo4d.modalities import (
    decode_disparity,
    decode_points,
    normalise_disparity,
    normalise_points,
)
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE
from geo4d.models.geo4d.widths import GROUPS, with_modalities
from geo4d.training.data import stack_clips
from geo4d.training.full import (
    Geo4DDiffusion,
    Geo4DPointDecoding,
    fill_unknown,
    known_share,
    window_maps,
)
from geo4d.training.sources import as_float


def constants(config) -> ContextConstants:
    width = config.unet.context_dim
    tokens = [torch.randn(1, 77, width), torch.randn(1, 77, width), torch.randn(1, 64, width)]
    return ContextConstants(*tokens)


def batch(source, frames: int = 2):
    clips = [as_float(source(i)) for i in range(2)]
    return stack_clips(clips, [torch.arange(frames)] * 2, [3, 4])


@pytest.fixture
def config():
    return small()


def test_targets_are_the_exact_inverse_of_what_inference_reads() -> None:
    points = torch.randn(3, 20, 30, 3) * 3 + torch.tensor([0.0, 0, 9])
    valid = torch.rand(3, 20, 30) < 0.9
    normalised, scale, shift = normalise_points(points, valid)
    inside = valid & (normalised.abs() < 2).all(-1)
    back = scale * decode_points(normalised) + torch.stack([torch.zeros(()), torch.zeros(()), shift])
    torch.testing.assert_close(back[inside], points[inside], rtol=1e-4, atol=1e-4)
    depth = points[..., 2].clamp(min=1)
    disparity, scale, shift = normalise_disparity(depth, valid)
    inside = valid & (disparity[..., 0].abs() < 1.1)
    back = scale * decode_disparity(disparity[..., 0]) + shift
    torch.testing.assert_close(back[inside], (1 / depth)[inside], rtol=1e-4, atol=1e-5)


def test_maps_of_a_batch_are_in_the_window_frame_and_share_one_scale(source) -> None:
    ours = batch(source)
    maps, valid = window_maps(ours)
    assert not valid[:, :, :3].any()
    assert (maps["point_map"].movedim(2, -1)[~valid] == 1.05).all()
    moved = replace(ours, depth=ours.depth * 5, c2w=ours.c2w.clone())
    moved.c2w[..., :3, 3] *= 5
    other, _ = window_maps(moved)
    # The published margin of 0.01 is in the unit of the data, so a change of unit shows a little.
    torch.testing.assert_close(other["ray_moment"], maps["ray_moment"], rtol=0.05, atol=2e-3)
    torch.testing.assert_close(
        maps["ray_direction"].norm(dim=2), torch.ones(2, 2, 32, 48), rtol=1e-5, atol=1e-5
    )


def test_unknown_depth_is_filled_from_the_surfaces_around_and_counts_nothing(source, config) -> None:
    depth = torch.full((1, 1, 6, 6), 2.0)
    depth[..., 0] = 5.0
    depth[..., 5, :] = torch.inf
    depth[..., 1:4, 1:4] = torch.nan
    filled = fill_unknown(depth)
    assert torch.equal(filled[~torch.isnan(depth)], depth[~torch.isnan(depth)])
    # The first ring takes the largest neighbour, never the sky; the middle then the largest of the ring.
    assert filled[0, 0, 1:4, 1:4].tolist() == [[5, 2, 2], [5, 5, 2], [5, 2, 2]]
    assert torch.isnan(fill_unknown(torch.full((1, 1, 3, 3), torch.nan))).all()
    torch.testing.assert_close(known_share(depth, 3)[0, 0, 0], torch.tensor([[5.0, 7], [7, 8]]) / 9)

    ours = wide(batch(source))
    hole = replace(ours, depth=ours.depth.clone())
    hole.depth[:, :, 16:32, 16:32] = torch.nan
    _, valid = window_maps(hole)
    assert not valid[:, :, 16:32, 16:32].any()
    task = Geo4DDiffusion(UNet(config.unet), VAE(config.vae), constants(config), config, ("points", "rays"))
    _, _, weight = task._targets(hole)
    cells = weight[0, :, 0]
    assert (cells[:4, 2:4, 2:4] == 0).all()  # the point map is not known there, rays are
    assert (cells[4:12] == 1).all()
    assert (cells[12:] == 0).all()
    loss, parts = Geo4DPointDecoding(VAE(config.vae))(
        replace(hole, depth=torch.full_like(hole.depth, torch.nan))
    )
    assert float(loss.detach()) == 0.0 == float(parts["likelihood"].detach())


def test_a_window_of_sky_alone_is_a_lesson_not_an_error(source) -> None:
    ours = batch(source)
    maps, valid = window_maps(replace(ours, depth=torch.full_like(ours.depth, torch.inf)))
    assert not valid.any()
    assert (maps["point_map"] == 1.05).all()
    assert (maps["disparity"] == -1.05).all()
    assert torch.isfinite(maps["ray_moment"]).all()


def test_each_window_tells_its_own_frame_rate_and_draws_its_own_latent(source, config) -> None:
    seen = {}

    class Watched(UNet):
        def forward(self, x, timestep, context, fps):
            seen["fps"] = fps
            return super().forward(x, timestep, context, fps)

    torch.manual_seed(0)
    task = Geo4DDiffusion(Watched(config.unet), VAE(config.vae), constants(config), config, ("points",))
    clips = [as_float(source(i)) for i in range(2)]
    clips = [
        replace(clip, times_s=torch.arange(4) / rate) for clip, rate in zip(clips, (30.0, 12.5), strict=True)
    ]
    ours = wide(stack_clips(clips, [torch.tensor([0, 2]), torch.tensor([1, 0])], [3, 4]))
    assert ours.fps.tolist() == pytest.approx([15.0, 12.5])
    task(ours)
    assert seen["fps"].tolist() == [15, 12]  # whole numbers, as at inference
    mean = task.encode(ours.rgb)
    drawn = task.encode(ours.rgb, ours.samples)
    assert not torch.allclose(drawn, mean)
    assert torch.equal(drawn, task.encode(ours.rgb, ours.samples))
    assert not torch.equal(drawn, task.encode(ours.rgb, ours.samples, 1))
    # A posterior without spread is its mean.
    task.vae.quant_conv.weight.data[4:] = 0
    task.vae.quant_conv.bias.data[4:] = -60
    torch.testing.assert_close(
        task.encode(ours.rgb, ours.samples), task.encode(ours.rgb), atol=1e-5, rtol=1e-4
    )


def wide(ours):
    """The same batch at a size that the network takes."""
    rgb = torch.nn.functional.interpolate(ours.rgb.flatten(0, 1), (64, 64)).unflatten(0, (2, 2))
    return replace(ours, rgb=rgb, depth=torch.nn.functional.interpolate(ours.depth, (64, 64), mode="nearest"))


@pytest.mark.parametrize("modalities", [("points",), ("points", "rays"), ("disparity", "points", "rays")])
def test_only_the_asked_modalities_are_counted(source, config, modalities) -> None:
    torch.manual_seed(0)
    task = Geo4DDiffusion(UNet(config.unet), VAE(config.vae), constants(config), config, modalities)
    ours = wide(batch(source))
    loss, _ = task(ours)
    loss.backward()
    wanted = {group for modality in modalities for group in GROUPS[modality]}
    gradient = task.unet.conv_out.weight.grad
    for index, group in enumerate(config.latent_groups):
        part = gradient[4 * index : 4 * index + 4].abs().max()
        assert (part > 0) == (group in wanted), group
    assert all(p.grad is None for p in task.vae.parameters())


def test_one_full_size_forward_and_backward_on_meta_tensors() -> None:
    config = full()
    with torch.device("meta"):
        unet = UNet(config.unet)
        unet.gradient_checkpointing = False
        x = torch.empty(1, 20, 16, 32, 40)
        v = unet(x, torch.empty(1), torch.empty(1, 77 + 256, 1024), torch.empty(1))
        assert v.shape == (1, 16, 16, 32, 40)
        v.square().mean().backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in unet.parameters())
        assert sum(p.numel() for p in unet.parameters()) == 1_438_924_112
        vae = VAE(config.vae)
        raw = vae.decode_with_uncertainty(torch.empty(1, 4, 32, 40))
        assert raw.shape == (1, 4, 256, 320)
        raw.square().mean().backward()


def test_the_decoder_stage_leaves_the_encoder_alone(source, config) -> None:
    torch.manual_seed(0)
    task = Geo4DPointDecoding(VAE(config.vae))
    assert all(name.startswith(("vae.decoder.", "vae.decoder_adaptor.")) for name in task.trained())
    optimiser = torch.optim.AdamW(task.trained().values(), 1e-3)
    ours, losses = batch(source), []
    for _ in range(8):
        loss, _ = task(ours)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.slow
def test_twenty_steps_at_full_width_and_reduced_depth_lower_the_loss() -> None:
    """Full width of the first level (320), one level, one residual block each way, real AdamW steps."""
    config = full()
    unet_config = replace(config.unet, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    torch.manual_seed(0)
    unet = UNet(unet_config)
    x, target = torch.randn(1, 20, 2, 8, 8), torch.randn(1, 16, 2, 8, 8)
    context, step, fps = torch.randn(1, 77 + 16, 1024), torch.tensor([500.0]), torch.tensor([24.0])
    optimiser = torch.optim.AdamW(unet.parameters(), 2e-4)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.mse_loss(unet(x, step, context, fps), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(np.isfinite(losses))


@pytest.mark.skipif("GEO4D_SHARED" not in os.environ, reason="needs the recorded cases; set GEO4D_SHARED")
def test_the_recorded_training_step() -> None:
    from geo4d.diffusion.denoiser import v_training_pair
    from geo4d.diffusion.schedules import make_schedule
    from geo4d.training.objectives import denoising_loss

    data = np.load(Path(os.environ["GEO4D_SHARED"]) / "reference/geo4d/train_loss.npz")
    load = {
        name: torch.from_numpy(data[name])
        for name in ("z", "noise", "timesteps", "model_output", "x_noisy", "v_target")
    }
    schedule = make_schedule()
    noisy, target = v_training_pair(
        load["z"], load["noise"], load["timesteps"], schedule.alphas_cumprod, schedule.scale
    )
    torch.testing.assert_close(noisy, load["x_noisy"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(target, load["v_target"], rtol=1e-5, atol=1e-5)
    assert float(denoising_loss(load["model_output"], target)) == pytest.approx(float(data["loss"]), rel=1e-5)


def test_a_network_without_channels_of_a_modality_is_no_task_for_it(config) -> None:
    config = with_modalities(config, ("points",))
    task = Geo4DDiffusion(UNet(config.unet), VAE(config.vae), constants(config), config, ("points",))
    assert task.active.shape == (1, 4, 1, 1, 1)
    with pytest.raises(
        ValueError, match="channels of points, rays, this one has none of ray_direction, ray_moment"
    ):
        Geo4DDiffusion(UNet(config.unet), VAE(config.vae), constants(config), config, ("points", "rays"))
