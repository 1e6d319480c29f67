import pytest
import torch

from geo4d.models.geometrycrafter.config import PointMapVAEConfig
from geo4d.models.geometrycrafter.vae import PointMapDecoder

MAPS = ("intrinsic", "logdepth", "mask")


@torch.no_grad()
def test_recorded_encoding(golden, golden_folder, small):
    data = golden("point_map_vae")
    vae, image_vae = small.make_point_map_vae(golden_folder), small.make_image_vae(golden_folder)
    moments = vae.encode_moments(data["maps"], image_vae)
    assert (moments - data["moments"]).abs().max() < 2e-5
    assert torch.equal(vae.encode(data["maps"], image_vae), moments[:, :4])


@torch.no_grad()
def test_recorded_decoding_in_chunks(golden, golden_folder, small):
    data = golden("point_map_vae")
    vae = small.make_point_map_vae(golden_folder)
    parts = [vae.decode(chunk, len(chunk)) for chunk in data["latent"].split(3)]
    for name, decoded in zip(MAPS, zip(*parts, strict=True), strict=True):
        assert (torch.cat(decoded)[..., ::4, ::4] - data[f"{name}_every_4th"]).abs().max() < 1e-4


def tiny_decoder() -> PointMapDecoder:
    torch.manual_seed(0)
    config = PointMapVAEConfig(dec_block_out_channels=(64, 64), dec_layers_per_block=2)
    return PointMapDecoder(config).requires_grad_(False)


def test_clips_do_not_see_each_other():
    decoder, latent = tiny_decoder(), torch.randn(4, 4, 4, 6)
    both = decoder(latent, 2)
    alone = decoder(latent[2:], 2)
    for together, apart in zip(both, alone, strict=True):
        torch.testing.assert_close(together[2:], apart, atol=1e-5, rtol=1e-5)


def test_memory_layout_changes_nothing_and_bfloat16_little():
    latent = torch.randn(3, 4, 4, 6)
    plain = tiny_decoder()(latent, 3)
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        cast = tiny_decoder().cast(dtype)(latent, 3)
        for reference, found in zip(plain, cast, strict=True):
            assert found.dtype == torch.float32
            assert (found - reference).abs().max() < limit * reference.abs().max().clamp(min=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_at_once_change_nothing(dtype):
    decoder, latent = tiny_decoder().cast(dtype), torch.randn(5, 4, 4, 6)
    expected = decoder(latent, 5)
    for decoder.frames_at_once in (1, 2, 8):
        for reference, found in zip(expected, decoder(latent, 5), strict=True):
            torch.testing.assert_close(
                found, reference, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-5
            )


def test_same_result_and_gradient_when_trained():
    decoder, latent = tiny_decoder(), torch.randn(2, 4, 4, 4)
    expected = decoder(latent, 2)
    decoder.requires_grad_(True)
    found = decoder(latent, 2)
    for reference, value in zip(expected, found, strict=True):
        torch.testing.assert_close(value, reference, atol=1e-5, rtol=1e-5)
    sum(value.square().mean() for value in found).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in decoder.parameters())


@pytest.mark.parametrize("num_frames", [1, 3])
def test_block_equals_the_library_block(num_frames):
    from diffusers.models.resnet import SpatioTemporalResBlock

    from geo4d.models.geometrycrafter.blocks import SpaceTimeBlock

    torch.manual_seed(0)
    library = SpatioTemporalResBlock(
        64, 32, temb_channels=None, eps=1e-6, temporal_eps=1e-5, merge_factor=0.3, merge_strategy="learned",
        switch_spatial_to_temporal_mix=True,
    ).requires_grad_(False)  # fmt: skip
    ours = SpaceTimeBlock(64, 32).requires_grad_(False)
    ours.load_state_dict(library.state_dict())
    x = torch.randn(2 * num_frames, 64, 5, 7)
    expected = library(x, image_only_indicator=torch.zeros(2, num_frames))
    torch.testing.assert_close(ours(x, num_frames), expected, atol=1e-5, rtol=1e-5)
