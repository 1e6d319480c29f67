import pytest
import torch

from geo4d.models.geometrycrafter.blocks import SpaceTimeBlock
from tests.support.blocks import tiny_decoder
from tests.support.fake_device import DEVICE, FakeDevice


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


def test_the_share_is_asked_for_once_on_an_accelerator():
    decoder = tiny_decoder()
    latent = torch.randn(4, 4, 4, 6)
    with torch.no_grad():
        plain = decoder(latent, 2)
    with FakeDevice() as device, torch.no_grad():
        decoder.to(DEVICE)
        found = [maps.cpu() for maps in decoder(latent.to(DEVICE), 2)]
        first = sum(device.waits.values())
        device.waits.clear()
        decoder(latent.to(DEVICE), 2)
        assert first > 3
        assert sum(device.waits.values()) == 0
        # A share that was trained in between is read again.
        for block in decoder.modules():
            if isinstance(block, SpaceTimeBlock):
                block.time_mixer.mix_factor += 2.0
        changed = [maps.cpu() for maps in decoder(latent.to(DEVICE), 2)]
    for one, other, third in zip(found, plain, changed, strict=True):
        torch.testing.assert_close(one, other)
        assert not torch.allclose(third, other)
