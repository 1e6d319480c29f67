"""The light decoder: what it costs beside its teachers, counted twice, and that it keeps frames and clips apart."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geo4d.models.light_decoder import MOST_FLOPS, LightDecoder, LightDecoderConfig, count_flops

SMALL = LightDecoderConfig(widths=(32, 16, 16, 8), blocks=1)


def counted(network: nn.Module, *arguments, method: str = "forward") -> int:
    """Torch's own count; gradients are on because some blocks of the teachers ask a parameter its value without."""
    with FlopCounterMode(display=False) as counter:
        getattr(network, method)(*arguments)
    return counter.get_total_flops()


def by_hand(network: nn.Module, *arguments) -> int:
    """2 x kernel x input channels for every number that a convolution gives."""
    total = 0

    def add(module, _, output) -> None:
        nonlocal total
        rows, columns = module.kernel_size
        total += 2 * rows * columns * module.in_channels // module.groups * output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    network(*arguments)
    return total


def test_a_light_decoder_of_geometrycrafter_needs_a_tenth_of_its_teacher_at_full_size() -> None:
    pytest.importorskip("diffusers")
    from geo4d.models.geometrycrafter.config import PointMapVAEConfig
    from geo4d.models.geometrycrafter.vae import PointMapDecoder
    from geo4d.training.tasks.geometrycrafter.light import share_of_flops
    from geo4d.training.tasks.geometrycrafter.networks import Sizes, smallest_sizes

    sizes = Sizes()
    with torch.device("meta"):
        latent = torch.zeros(8, 4, 448 // 8, 768 // 8)
        teacher = PointMapDecoder(PointMapVAEConfig()).to("meta")
        light = LightDecoder(sizes.light_decoder)
        share = counted(light, latent, 8) / counted(teacher, latent, 8)
    assert share <= MOST_FLOPS == 0.1
    assert share == pytest.approx(share_of_flops(sizes.light_decoder, sizes.point_map_vae), rel=1e-12)
    small = smallest_sizes()
    assert share_of_flops(small.light_decoder, small.point_map_vae, (64, 64)) <= MOST_FLOPS


def test_a_light_decoder_of_geo4d_needs_a_tenth_of_its_teacher_at_full_size() -> None:
    from geo4d.models.geo4d.vae import VAE
    from geo4d.training.recipes import find_preset
    from geo4d.training.tasks.geo4d.distilled import share_of_flops

    for name in ("full", "smallest"):
        preset = find_preset("geo4d", name)
        with torch.device("meta"):
            latent = torch.zeros(1, 4, 448 // 8, 768 // 8)
            teacher = counted(VAE(preset.geo4d.vae), latent, method="decode_with_uncertainty")
            share = counted(LightDecoder(preset.light_decoder), latent) / teacher
        assert share <= MOST_FLOPS
        assert share == pytest.approx(share_of_flops(preset.light_decoder, preset.geo4d.vae), rel=1e-12)


@pytest.mark.parametrize("over_time", [True, False])
def test_the_count_is_that_of_its_convolutions(over_time: bool) -> None:
    config = LightDecoderConfig(out_channels=(2, 1), widths=(32, 16, 8), blocks=2, over_time=over_time)
    latent = torch.zeros(4, 4, 3, 5)
    found = count_flops(lambda: LightDecoder(config), lambda d: d(torch.zeros(4, 4, 3, 5), 2))
    assert found == by_hand(LightDecoder(config), latent, 2)


def drawn(config: LightDecoderConfig) -> LightDecoder:
    """Weights away from their start, at which frames do not see each other."""
    torch.manual_seed(0)
    decoder = LightDecoder(config)
    with torch.no_grad():
        for value in decoder.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return decoder.eval().requires_grad_(False)


def test_clips_do_not_see_each_other_and_neighbouring_frames_do() -> None:
    decoder = drawn(SMALL)
    latent = torch.randn(6, 4, 4, 4)
    whole = torch.cat(decoder(latent, 3), 1)
    assert whole.shape == (6, 3, 32, 32)
    torch.testing.assert_close(torch.cat(decoder(latent[3:], 3), 1), whole[3:], rtol=1e-5, atol=1e-5)
    changed = latent.clone()
    changed[0] += 1
    moved = (torch.cat(decoder(changed, 3), 1) - whole).abs().amax((1, 2, 3))
    assert (moved[:3] > 1e-4).all()
    assert (moved[3:] == 0).all()
    assert torch.cat(decoder(latent[:1], 1), 1).shape == (1, 3, 32, 32)


def test_frames_at_once_changes_memory_alone_and_half_precision_stays_close() -> None:
    decoder, latent = drawn(SMALL), torch.randn(4, 4, 4, 4)
    whole = torch.cat(decoder(latent, 4), 1)
    decoder.frames_at_once = 1
    torch.testing.assert_close(torch.cat(decoder(latent, 4), 1), whole, rtol=1e-5, atol=1e-5)
    half = torch.cat(decoder.cast(torch.bfloat16)(latent, 4), 1)
    assert half.dtype == torch.float32
    assert float((half - whole).abs().mean() / whole.abs().mean()) < 0.03


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"widths": (32, 12)}, {"blocks": 0}])
def test_sizes_are_checked(wrong) -> None:
    with pytest.raises(ValueError, match="multiples of 8 and at least one block"):
        LightDecoderConfig(**wrong)
