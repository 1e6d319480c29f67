import torch

from tests.support.blocks import tiny_decoder

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
