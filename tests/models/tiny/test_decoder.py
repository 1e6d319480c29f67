import pytest
import torch

from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.decoder import MIN_SIGMA, START_SIGMA, GuidedDecoder, raised_disparity
from geo4d.models.tiny.modalities import NormalisedMaps

SIZE, T = (64, 96), 3
HALF = (32, 48)


def inputs(batch: int = 2):
    g = torch.Generator().manual_seed(0)
    config = smallest_preset()
    cells = (HALF[0] // 8, HALF[1] // 8)
    maps = NormalisedMaps(
        torch.randn(batch, T, 1, *HALF, generator=g),
        torch.randn(batch, T, 3, *HALF, generator=g),
        torch.randn(batch, T, 6, *cells, generator=g),
    )
    latent = torch.randn(batch, T, config.latent_channels, *cells, generator=g)
    rgb = torch.rand(batch, T, 3, *SIZE, generator=g) * 2 - 1
    return maps, latent, rgb, no_evidence(batch, T, HALF, rgb), torch.arange(T).float().expand(batch, -1)


def trained() -> GuidedDecoder:
    torch.manual_seed(0)
    decoder = GuidedDecoder(smallest_preset()).eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return decoder


def test_before_training_it_changes_nothing_and_says_one_spread() -> None:
    maps, *rest = inputs()
    found = GuidedDecoder(smallest_preset())(maps, *rest)
    assert found.disparity.shape == (2, T, 1, *SIZE)
    assert torch.equal(found.disparity, raised_disparity(maps))
    assert found.disparity_sigma.unique().tolist() == pytest.approx([MIN_SIGMA + START_SIGMA])
    assert (found.sky_logit == 0).all()


def test_raised_disparity_keeps_its_place() -> None:
    """A slope that is exact at half size is exact at whole size, away from the border: no shift by half a pixel."""
    columns = torch.arange(HALF[1]) + 0.5
    maps, *_ = inputs(1)
    slope = NormalisedMaps((2 * columns).expand(1, T, 1, *HALF).contiguous(), maps.points, maps.rays)
    raised = raised_disparity(slope)[0, 0, 0, 0]
    torch.testing.assert_close(raised[2:-2], (torch.arange(SIZE[1]) + 0.5)[2:-2])


def test_spreads_stay_between_their_bounds_whatever_comes() -> None:
    maps, latent, *rest = inputs()
    decoder = trained()
    for factor in (1.0, 1e3):
        found = decoder(maps, factor * latent, *rest)
        assert found.disparity_sigma.min() >= MIN_SIGMA
        assert found.disparity_sigma.max() <= MIN_SIGMA + START_SIGMA * 2.7183**3 + 1e-4


def test_frames_of_a_window_see_each_other_and_windows_do_not() -> None:
    maps, latent, rgb, *rest = inputs()
    decoder = trained()
    whole = decoder(maps, latent, rgb, *rest)
    rgb2 = rgb.clone()
    rgb2[0, 1] += 1
    other = decoder(maps, latent, rgb2, *rest)
    changed = (whole.disparity != other.disparity).flatten(2).any(2)
    assert changed.tolist() == [[True, True, True], [False, False, False]]


def test_every_input_reaches_the_answer() -> None:
    maps, latent, rgb, evidence, frames = inputs(1)
    decoder = trained()
    plain = decoder(maps, latent, rgb, evidence, frames).sky_logit
    evidence.depth[:] = 0.5
    assert not torch.equal(decoder(maps, latent, rgb, evidence, frames).sky_logit, plain)
    evidence.depth[:] = 0
    assert not torch.equal(decoder(maps, latent + 1, rgb, evidence, frames).sky_logit, plain)
    assert not torch.equal(decoder(maps, latent, rgb, evidence, 3 * frames).sky_logit, plain)
    assert torch.equal(decoder(maps, latent, rgb, evidence, frames).sky_logit, plain)


def test_recomputing_saves_memory_and_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        decoder = trained()
        decoder.checkpointing = checkpointing
        maps, latent, *rest = inputs(1)
        latent.requires_grad_()
        found = decoder(maps, latent, *rest)
        (found.disparity.square().mean() + found.sky_logit.mean()).backward()
        gradients.append((latent.grad, decoder.latent_in.weight.grad))
    torch.testing.assert_close(gradients[0], gradients[1])
