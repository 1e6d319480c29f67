"""The codec: layouts, sampling, the uncertainty head."""

from collections.abc import Callable

import torch

from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.models.layers import use_channels_last


def test_shapes_and_uncertainty_head(make_part: Callable[..., VAE]) -> None:
    vae = make_part("vae")
    picture = torch.rand(2, 3, 32, 48) * 2 - 1
    moments = vae.moments(picture)
    assert moments.shape == (2, 8, 4, 6)
    z = torch.randn(2, 4, 4, 6)
    both = vae.decode_with_uncertainty(z)
    assert both.shape == (2, 4, 32, 48)
    torch.testing.assert_close(both[:, :3], vae.decode(z))
    assert not torch.allclose(vae.moments(picture, adapt=True), moments)


def test_layouts_and_batches_agree(make_part: Callable[..., VAE]) -> None:
    vae, last = make_part("vae"), use_channels_last(make_part("vae"))
    z = torch.randn(3, 4, 4, 4)
    torch.testing.assert_close(last.decode(z), vae.decode(z), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        torch.cat([vae.decode(p) for p in z.split(1)]), vae.decode(z), rtol=1e-4, atol=1e-5
    )


def test_posterior_sample() -> None:
    moments = torch.cat([torch.full((1, 4, 2, 2), 0.5), torch.full((1, 4, 2, 2), 60.0)], 1)
    noise = torch.ones(1, 4, 2, 2)
    torch.testing.assert_close(
        sample_moments(moments, noise), torch.full((1, 4, 2, 2), 0.5 + float(torch.tensor(10.0).exp()))
    )
    assert (sample_moments(moments, None) == 0.5).all()
