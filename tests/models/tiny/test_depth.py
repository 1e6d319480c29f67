import pytest
import torch

from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.depth import MIN_SIGMA, START_SIGMA, DepthNetwork, doubled

SIZE, T = (64, 96), 3
HALF = (32, 48)


def inputs(batch: int = 2):
    g = torch.Generator().manual_seed(0)
    rgb = torch.rand(batch, T, 3, *SIZE, generator=g) * 2 - 1
    known = torch.randn(batch, T, 1, *HALF, generator=g)
    return rgb, known, no_evidence(batch, T, HALF, rgb), torch.arange(T).float().expand(batch, -1)


def trained() -> DepthNetwork:
    torch.manual_seed(0)
    network = DepthNetwork(smallest_preset()).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def test_before_training_it_changes_nothing_and_says_one_spread() -> None:
    rgb, known, *rest = inputs()
    network = DepthNetwork(smallest_preset())
    found = network(network.features(rgb), known, *rest)
    assert found.disparity.shape == (2, T, 1, *SIZE)
    assert torch.equal(found.disparity, doubled(known))
    assert found.disparity_sigma.unique().tolist() == pytest.approx([MIN_SIGMA + START_SIGMA])
    assert (found.sky_logit == 0).all()


def test_doubled_maps_keep_their_place() -> None:
    """A slope that is exact at half size is exact at whole size, away from the border: no shift by half a pixel."""
    columns = torch.arange(HALF[1]) + 0.5
    raised = doubled((2 * columns).expand(1, T, 1, *HALF).contiguous())[0, 0, 0, 0]
    torch.testing.assert_close(raised[2:-2], (torch.arange(SIZE[1]) + 0.5)[2:-2])


def test_spreads_stay_between_their_bounds_whatever_comes() -> None:
    rgb, known, *rest = inputs()
    network = trained()
    for factor in (1.0, 1e3):
        found = network(network.features(rgb), factor * known, *rest)
        assert found.disparity_sigma.min() >= MIN_SIGMA
        assert found.disparity_sigma.max() <= MIN_SIGMA + START_SIGMA * 2.7183**3 + 1e-4


def test_frames_of_a_window_see_each_other_and_windows_do_not() -> None:
    rgb, *rest = inputs()
    network = trained()
    whole = network(network.features(rgb), *rest)
    other_rgb = rgb.clone()
    other_rgb[0, 1] += 1
    changed = (whole.disparity != network(network.features(other_rgb), *rest).disparity).flatten(2).any(2)
    assert changed.tolist() == [[True, True, True], [False, False, False]]


def test_every_input_reaches_the_answer() -> None:
    rgb, known, evidence, frames = inputs(1)
    network = trained()
    seen = network.features(rgb)
    plain = network(seen, known, evidence, frames).sky_logit
    evidence.depth[:] = 0.5
    assert not torch.equal(network(seen, known, evidence, frames).sky_logit, plain)
    evidence.depth[:] = 0
    assert not torch.equal(network(seen, known + 1, evidence, frames).sky_logit, plain)
    assert not torch.equal(network(seen, known, evidence, 3 * frames).sky_logit, plain)
    assert torch.equal(network(seen, known, evidence, frames).sky_logit, plain)


def test_recomputing_saves_memory_and_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        network = trained()
        network.checkpointing = checkpointing
        rgb, known, *rest = inputs(1)
        known.requires_grad_()
        found = network(network.features(rgb), known, *rest)
        (found.disparity.square().mean() + found.sky_logit.mean()).backward()
        gradients.append((known.grad, network.known_in.weight.grad))
    torch.testing.assert_close(gradients[0], gradients[1])
