import pytest
import torch

from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.decoder import MIN_SIGMA, START_SIGMA, GuidedDecoder
from geo4d.models.tiny.modalities import NormalisedMaps

SIZE, T = (32, 48), 3


def inputs(batch: int = 2):
    g = torch.Generator().manual_seed(0)
    config = smallest_preset()
    maps = NormalisedMaps(
        torch.randn(batch, T, 1, *SIZE, generator=g),
        torch.randn(batch, T, 3, *SIZE, generator=g),
        torch.randn(batch, T, 6, SIZE[0] // 8, SIZE[1] // 8, generator=g),
    )
    latent = torch.randn(batch, T, config.latent_channels, SIZE[0] // 8, SIZE[1] // 8, generator=g)
    rgb = torch.rand(batch, T, 3, *SIZE, generator=g) * 2 - 1
    return maps, latent, rgb, no_evidence(batch, T, SIZE, rgb)


def trained() -> GuidedDecoder:
    torch.manual_seed(0)
    decoder = GuidedDecoder(smallest_preset()).eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return decoder


def test_before_training_it_changes_nothing_and_says_one_spread() -> None:
    maps, *rest = inputs()
    found = GuidedDecoder(smallest_preset())(maps, *rest)
    assert torch.equal(found.disparity, maps.disparity)
    assert torch.equal(found.points, maps.points)
    assert found.disparity_sigma.unique().tolist() == pytest.approx([MIN_SIGMA + START_SIGMA])
    assert found.point_sigma.unique().tolist() == pytest.approx([MIN_SIGMA + START_SIGMA])
    assert (found.sky_logit == 0).all()


def test_spreads_stay_between_their_bounds_whatever_comes() -> None:
    maps, latent, rgb, evidence = inputs()
    decoder = trained()
    for factor in (1.0, 1e3):
        found = decoder(maps, factor * latent, rgb, evidence)
        for sigma in (found.disparity_sigma, found.point_sigma):
            assert sigma.min() >= MIN_SIGMA
            assert sigma.max() <= MIN_SIGMA + START_SIGMA * 2.7183**3 + 1e-4


def test_frames_are_finished_one_by_one() -> None:
    maps, latent, rgb, evidence = inputs()
    decoder = trained()
    whole = decoder(maps, latent, rgb, evidence)
    rgb2 = rgb.clone()
    rgb2[0, 1] += 1
    other = decoder(maps, latent, rgb2, evidence)
    changed = (whole.disparity != other.disparity).flatten(2).any(2)
    assert changed.tolist() == [[False, True, False], [False, False, False]]


def test_every_input_reaches_the_answer() -> None:
    maps, latent, rgb, evidence = inputs(1)
    decoder = trained()
    plain = decoder(maps, latent, rgb, evidence).sky_logit
    evidence.depth[:] = 0.5
    assert not torch.equal(decoder(maps, latent, rgb, evidence).sky_logit, plain)
    evidence.depth[:] = 0
    assert not torch.equal(decoder(maps, latent + 1, rgb, evidence).sky_logit, plain)
    assert torch.equal(decoder(maps, latent, rgb, evidence).sky_logit, plain)


def test_recomputing_saves_memory_and_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        decoder = trained()
        decoder.checkpointing = checkpointing
        maps, latent, rgb, evidence = inputs(1)
        latent.requires_grad_()
        found = decoder(maps, latent, rgb, evidence)
        (found.disparity.square().mean() + found.sky_logit.mean()).backward()
        gradients.append((latent.grad, decoder.latent_in.weight.grad))
    torch.testing.assert_close(gradients[0], gradients[1])
