import pytest
import torch

from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import TinyConfig, smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.network import Evidence, TinyUNet
from tests.support.tiny_networks import inputs, run


def test_a_fresh_network_answers_zero() -> None:
    net = TinyUNet(smallest_preset())
    assert run(net, *inputs()).abs().max() == 0


def test_windows_of_a_batch_do_not_see_each_other(net: TinyUNet) -> None:
    rgb, latent, frames = inputs()
    both = run(net, rgb, latent, frames)
    alone = run(net, rgb[1:], latent[1:], frames[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_frames_of_a_window_do_see_each_other(net: TinyUNet) -> None:
    rgb, latent, frames = inputs(batch=1)
    other = rgb.clone()
    other[:, 2] = -other[:, 2]
    change = (run(net, rgb, latent, frames) - run(net, other, latent, frames))[:, 0].abs().max()
    assert change > 1e-4


def test_evidence_position_and_timestep_reach_the_answer(net: TinyUNet) -> None:
    rgb, latent, frames = inputs(batch=1)
    base = run(net, rgb, latent, frames)
    evidence = Evidence(torch.rand(1, 3, 3, 16, 24), torch.rand(1, 3, 8, 4, 6))
    assert (run(net, rgb, latent, frames, evidence) - base).abs().max() > 1e-4
    assert (run(net, rgb, latent, frames * 3) - base).abs().max() > 1e-5
    assert (run(net, rgb, latent, frames, timestep=10) - base).abs().max() > 1e-5


@pytest.mark.parametrize(("frames", "size"), [(1, (32, 32)), (5, (64, 48)), (16, (32, 80))])
def test_any_number_of_frames_and_any_multiple_of_16(
    net: TinyUNet, frames: int, size: tuple[int, int]
) -> None:
    rgb, latent, positions = inputs(1, frames, size)
    assert run(net, rgb, latent, positions).shape == latent.shape


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="6 ray channels"):
        TinyConfig(ray_channels=4)
    with pytest.raises(ValueError, match="divisible"):
        TinyConfig(inner_width=100, num_heads=3)


def test_checkpointing_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = TinyModel(smallest_preset())
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    rgb, latent, frames = inputs()
    nothing = no_evidence(2, 3, (32, 48), rgb)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        model.network.checkpointing = model.depth.checkpointing = enabled
        v = run(model.network, rgb, latent, frames)
        twice = rgb.repeat_interleave(2, -1).repeat_interleave(2, -2)
        found = model.depth_maps(twice, nothing, frames)
        (v.square().mean() + found.disparity.square().mean() + found.sky_logit.square().mean()).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) > 50
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)
