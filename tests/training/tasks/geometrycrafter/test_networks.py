import dataclasses

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from geo4d.errors import CheckpointError
from geo4d.models.geometrycrafter.config import ImageVAEConfig, PointMapVAEConfig, UNetConfig
from geo4d.models.geometrycrafter.vae import ImageVAE
from geo4d.training.tasks.geometrycrafter import networks
from geo4d.training.tasks.geometrycrafter.networks import (
    choose_trained,
    fresh_point_map_vae,
    fresh_unet,
    from_depthcrafter,
    is_idle,
    is_temporal,
    smallest_sizes,
    trunk_of_image_decoder,
)


def stock_unet(config: UNetConfig, channels: int) -> dict[str, torch.Tensor]:
    """The library's own UNet, which DepthCrafter's weights belong to: eight channels, noisy latent and frame latent."""
    from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

    options = {**dataclasses.asdict(config), "in_channels": channels}
    assert options.pop("norm_num_groups") == 32  # the library's, where it is not said
    with torch.device("meta"):
        return UNetSpatioTemporalConditionModel(**options).state_dict()


def test_full_key_lists_of_depthcrafter_and_both_variants() -> None:
    state = stock_unet(UNetConfig(), 8)
    assert sum(value.numel() for value in state.values()) == 1_524_623_082
    for channels in (12, 8):
        config = UNetConfig(in_channels=channels)
        found = from_depthcrafter(state, config)
        assert found.keys() == state.keys() == stock_unet(config, channels).keys()
        changed = [key for key in state if found[key].shape != state[key].shape]
        assert changed == (["conv_in.weight"] if channels == 12 else [])
        assert found["conv_in.weight"].shape[1] == channels


def test_the_prior_starts_unseen_and_the_rest_as_it_was() -> None:
    sizes = smallest_sizes()
    before = fresh_unet(sizes.unet_for("determ")).state_dict()  # eight channels, as DepthCrafter's
    found = from_depthcrafter(before, sizes.unet_for("diff"))
    assert torch.equal(found["conv_in.weight"][:, :8], before["conv_in.weight"])
    assert not found["conv_in.weight"][:, 8:].any()
    assert all(torch.equal(found[key], before[key]) for key in before if key != "conv_in.weight")
    again = from_depthcrafter(found, sizes.unet_for("diff"))  # one of our own goes through unchanged
    assert torch.equal(again["conv_in.weight"], found["conv_in.weight"])


@pytest.mark.parametrize("fault", ["missing", "unknown", "another shape"])
def test_a_foreign_start_is_refused(fault: str) -> None:
    sizes = smallest_sizes()
    state = fresh_unet(sizes.unet_for("determ")).state_dict()
    if fault == "missing":
        del state["conv_out.bias"]
    elif fault == "unknown":
        state["surprise"] = torch.zeros(1)
    else:
        state["conv_in.weight"] = state["conv_in.weight"][:, :5]
    with pytest.raises(CheckpointError, match=f"does not fit a UNet of 12 channels.*{fault}"):
        from_depthcrafter(state, sizes.unet_for("diff"))


def test_full_key_lists_of_the_two_decoders() -> None:
    with torch.device("meta"):
        image = ImageVAE(ImageVAEConfig(), with_decoder=True).decoder.state_dict()
        point_map = networks.PointMapVAE(PointMapVAEConfig()).decoder.state_dict()
    trunk = trunk_of_image_decoder(image)
    own = {key for key in point_map if not key.startswith(networks.HEADS)}
    assert trunk.keys() == own
    assert all(trunk[key].shape == point_map[key].shape for key in own)
    assert {key.split(".")[0] for key in image.keys() - own} == {"conv_norm_out", "conv_out", "time_conv_out"}


def test_the_latent_starts_as_the_pictures_and_the_decoder_may_start_from_the_image_decoder() -> None:
    torch.manual_seed(0)
    sizes = smallest_sizes()
    wide = dataclasses.replace(sizes.image_vae, block_out_channels=(64, 64, 64, 64))
    image_vae = ImageVAE(wide, with_decoder=True).eval()
    vae = fresh_point_map_vae(sizes.point_map_vae, image_vae.decoder.state_dict())
    maps = torch.rand(1, 4, 64, 64) * 2 - 1
    with torch.no_grad():
        picture = image_vae.encode(maps[:, 2:3].expand(-1, 3, -1, -1))
        assert torch.equal(vae.encode(maps, image_vae), picture)
    assert torch.equal(vae.decoder.conv_in.weight, image_vae.decoder.conv_in.weight)
    with pytest.raises(CheckpointError, match="does not fit the point-map decoder"):
        fresh_point_map_vae(
            sizes.point_map_vae, ImageVAE(sizes.image_vae, with_decoder=True).decoder.state_dict()
        )


def test_layers_that_mix_frames_carry_most_of_what_frames_see_of_each_other() -> None:
    """By behaviour: without their taps on other frames, frame 2 reaches frame 0 through the norms over time alone."""
    torch.manual_seed(0)
    vae = networks.PointMapVAE(smallest_sizes().point_map_vae)  # a fresh one's taps on other frames are zero
    temporal = {name for name, _ in vae.decoder.named_parameters() if is_temporal(name)}
    assert temporal
    latent = torch.randn(3, 4, 8, 8)
    other = latent.clone()
    other[2] += 1
    with torch.no_grad():
        seen = (vae.decode(latent, 3)[1][0] - vae.decode(other, 3)[1][0]).abs().max()
        for name, value in vae.decoder.named_parameters():
            if name in temporal and value.ndim == 5:
                value[:, :, 0], value[:, :, 2] = 0, 0
        unseen = (vae.decode(latent, 3)[1][0] - vae.decode(other, 3)[1][0]).abs().max()
    assert float(unseen) < 0.5 * float(seen)


@pytest.mark.parametrize("temporal_only", [False, True])
def test_every_trained_parameter_gets_a_gradient_and_idle_ones_cannot_matter(temporal_only: bool) -> None:
    torch.manual_seed(0)
    unet = fresh_unet(smallest_sizes().unet_for("diff"))
    choose_trained(unet, temporal_only=temporal_only)
    inputs = (
        torch.randn(2, 3, 12, 8, 8),
        torch.tensor([0.1, -0.3]),
        torch.randn(2, 3, 32),
        torch.zeros(2, 3),
    )
    out = unet(*inputs)
    out.square().mean().backward()
    trained = {name: value for name, value in unet.named_parameters() if value.requires_grad}
    assert all(value.grad is not None for value in trained.values())
    assert all(is_temporal(name) for name in trained) == temporal_only
    if not temporal_only:
        with torch.no_grad():
            for name, value in unet.named_parameters():
                if is_idle(name):
                    value.normal_()
        assert torch.equal(unet(*inputs), out)


def test_windows_of_a_batch_have_noise_levels_of_their_own() -> None:
    torch.manual_seed(0)
    unet = fresh_unet(smallest_sizes().unet_for("diff")).requires_grad_(False)
    sample, tokens, ids = torch.randn(2, 2, 12, 8, 8), torch.randn(2, 2, 32), torch.zeros(2, 3)
    both = unet(sample, torch.tensor([0.5, -1.0]), tokens, ids)
    for b, timestep in enumerate((0.5, -1.0)):
        alone = unet(sample[b : b + 1], timestep, tokens[b : b + 1], ids[b : b + 1])
        torch.testing.assert_close(both[b : b + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_fresh_decoder_is_blind_to_the_neighbouring_frames() -> None:
    torch.manual_seed(3)
    vae = fresh_point_map_vae(smallest_sizes().point_map_vae)
    over_time = [layer for layer in vae.decoder.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert over_time
    assert all(
        not layer.weight[:, :, side].any() and layer.weight[:, :, 1].any()
        for layer in over_time
        for side in (0, 2)
    )
    # Single pictures do not change that: their neighbours are padding, which gives no gradient.
    single = sum(part.square().sum() for part in vae.decode(torch.randn(2, 4, 2, 2), 1))
    single.backward()
    assert all(layer.weight.grad is not None and not layer.weight.grad[:, :, 0].any() for layer in over_time)
