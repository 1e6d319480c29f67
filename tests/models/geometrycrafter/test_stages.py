import dataclasses

import pytest
import torch

from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, SchedulerConfig
from geo4d.models.geometrycrafter.embedding import build_image_encoder
from geo4d.models.geometrycrafter.prior_maps import frame_records, merge_statistics
from geo4d.models.geometrycrafter.stages import GeometryCrafter
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE
from geo4d.models.geometrycrafter.windows import draw_noise
from geo4d.training.tasks.geometrycrafter.networks import fresh_point_map_vae, reduced_sizes


def test_recorded_run_of_the_deterministic_variant(golden, golden_folder, small):
    data = golden("pipeline_determ")
    arguments = data["args"]
    system = small.make_system(
        golden_folder,
        "determ",
        window_length=arguments["window_size"],
        overlap=arguments["overlap"],
        decode_chunk=arguments["decode_chunk_size"],
    )
    rgb = data["video_uint8"].float().div(255).movedim(1, -1)
    size = (arguments["height"], arguments["width"])
    found = system.run(rgb, data["prior_points"], data["prior_mask"], size, None)
    points, reference = found.point_map[:, ::4, ::4], data["point_map_every_4th"]
    assert ((points - reference).norm(dim=-1) / reference[..., 2]).max() < 1e-3
    assert (found.valid[:, ::4, ::4] != data["valid_mask_every_4th"]).float().mean() <= 1e-3


def test_encoding_does_not_depend_on_its_chunk(make_window, room_prior, golden_folder, small):
    window = make_window(range(3), (64, 64))
    prior = room_prior(window)
    statistics = merge_statistics(frame_records(prior.points, prior.mask))
    found = [
        small.make_system(golden_folder, "determ", encode_chunk=chunk).encode(
            window.rgb, prior.points, prior.mask, statistics, (64, 64)
        )
        for chunk in (1, 3)
    ]
    for name in ("tokens", "video_latents", "prior_latents"):
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["diff", "determ"])
def test_odd_source_size_and_tiles(variant, make_window, room_prior, golden_folder, small):
    window = make_window(range(2), (71, 133))
    prior = room_prior(window)
    system = small.make_system(golden_folder, variant, num_steps=1, encode_tile=64, decode_tile=64)
    noise = draw_noise(110, (4, 8, 16), 0) if variant == "diff" else None
    found = system.run(window.rgb, prior.points, prior.mask, (64, 128), noise)
    assert found.point_map.shape == (2, 71, 133, 3)
    assert torch.isfinite(found.point_map).all()


def test_sixteen_bits_stay_close(golden, golden_folder, small):
    """Prior latents, frame latents and decoded maps in bfloat16 against float32."""
    import copy

    data = golden("pipeline_determ")
    rgb = data["video_uint8"][:1].float().div(255).movedim(1, -1)
    points, mask = data["prior_points"][:1], data["prior_mask"][:1]
    statistics = merge_statistics(frame_records(points, mask))
    plain = small.make_system(golden_folder, "determ")
    half = type(plain)(
        "determ", *(copy.deepcopy(n) for n in (plain.unet, plain.point_map_vae, plain.image_vae, plain.image_encoder)),
        plain.scheduler, dataclasses.replace(plain.config, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    )  # fmt: skip
    latents = data["latents_final_unscaled"][:1] * plain.image_vae.config.scaling_factor
    for name, limit in (("video_latents", 0.05), ("prior_latents", 0.05)):
        exact, rounded = (
            getattr(s.encode(rgb, points, mask, statistics, (64, 64)), name) for s in (plain, half)
        )
        assert 0 < (rounded - exact).abs().mean() < limit * exact.std()
    exact, rounded = (next(s.iter_decode(latents, (64, 64))).log_depth for s in (plain, half))
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.std()


def test_wrong_network_for_the_variant(golden_folder, small):
    system = small.make_system(golden_folder, "determ")
    with pytest.raises(ValueError, match="12 input channels"):
        type(system)(
            "diff", system.unet, system.point_map_vae, system.image_vae, system.image_encoder, system.scheduler,
            system.config,
        )  # fmt: skip


def test_steps_between_reuse_the_deep_levels(make_window, room_prior, golden_folder, small):
    window = make_window(range(2), (64, 128))
    prior = room_prior(window)
    noise = draw_noise(110, (4, 8, 16), 0)
    found = {}
    for interval in (1, 2):
        system = small.make_system(golden_folder, "diff", num_steps=3, cache_interval=interval)
        ran: list[int] = []
        system.unet.mid_block.register_forward_hook(lambda *unused, ran=ran: ran.append(1))
        found[interval] = system.run(window.rgb, prior.points, prior.mask, (64, 128), noise).point_map
        assert len(ran) == {1: 3, 2: 2}[interval]
    assert not torch.equal(found[1], found[2])
    assert torch.isfinite(found[2]).all()


@pytest.mark.parametrize("tile", [None, 64])
@torch.no_grad()
def test_autoencoders_of_three_levels(make_window, room_prior, tile):
    """Networks of the training size ``reduced``: a latent pixel is 4 pixels wide, with and without tiles."""
    sizes = reduced_sizes()
    torch.manual_seed(0)
    system = GeometryCrafter(
        "diff",
        FrameTokenUNet(**dataclasses.asdict(sizes.unet_for("diff"))),
        fresh_point_map_vae(sizes.point_map_vae),
        ImageVAE(sizes.image_vae),
        build_image_encoder(sizes.image_encoder),
        SchedulerConfig(),
        GeometryCrafterConfig(num_steps=1, unet_dtype="float32", encode_tile=tile, decode_tile=tile),
    )
    assert system.latent_shape((64, 128)) == (4, 16, 32)
    window = make_window(range(2), (71, 133))
    prior = room_prior(window)
    noise = draw_noise(110, (4, 16, 32), 0)
    found = system.run(window.rgb, prior.points, prior.mask, (64, 128), noise)
    assert found.point_map.shape == (2, 71, 133, 3)
    assert torch.isfinite(found.point_map).all()
