import pytest
import torch

from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.noise import draw_noise

SIZE = (128, 192)


@pytest.fixture(scope="module")
def config() -> Geo4DConfig:
    return Geo4DConfig()


def test_shapes_are_those_of_the_latents(config: Geo4DConfig) -> None:
    noise = draw_noise(0, 0, config, SIZE, num_frames=4, num_steps=3)
    small = (SIZE[0] // config.vae.downsampling, SIZE[1] // config.vae.downsampling)
    assert noise.posterior.shape == (4, config.vae.latent_channels, *small)
    assert noise.first.shape == (config.unet.out_channels, 4, *small)
    assert noise.steps is not None
    assert noise.steps.shape == (4, config.unet.out_channels, 4, *small)
    assert draw_noise(0, 0, config, SIZE, num_frames=4).steps is None


def test_numbers_are_standard_normal(config: Geo4DConfig) -> None:
    first = draw_noise(3, 1, config, SIZE).first
    count = first.numel()
    assert abs(float(first.mean())) < 5 / count**0.5
    assert float(first.var()) == pytest.approx(1, abs=5 * (2 / count) ** 0.5)


def test_a_window_has_its_own_noise_whatever_else_is_drawn(config: Geo4DConfig) -> None:
    torch.manual_seed(0)
    first = draw_noise(7, 2, config, SIZE, num_frames=2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = draw_noise(7, 2, config, SIZE, num_frames=2)
    assert torch.equal(first.first, again.first)
    assert torch.equal(first.posterior, again.posterior)
    assert torch.equal(torch.get_rng_state(), state)  # nothing global is touched
    # Steps come last, so that a sampler with them starts from the same latent.
    assert torch.equal(draw_noise(7, 2, config, SIZE, num_frames=2, num_steps=5).first, first.first)
    for seed, index in ((7, 3), (8, 2), (72, 0)):
        other = draw_noise(seed, index, config, SIZE, num_frames=2)
        correlation = torch.corrcoef(torch.stack([other.first.flatten(), first.first.flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.1
