import pytest
import torch

from geo4d.models.tiny.codec import LatentCodec
from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.modalities import NormalisedMaps


def smooth_maps(seed: int, windows: int = 40) -> NormalisedMaps:
    """Maps that are a plane inside every block: three numbers per block and channel say everything."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")

    def planes(channels: int) -> torch.Tensor:
        c = torch.randn((windows, 2, channels, 4, 6, 3), generator=generator)
        blocks = c[..., 0, None, None] + c[..., 1, None, None] * x + c[..., 2, None, None] * y
        return blocks.permute(0, 1, 2, 3, 5, 4, 6).reshape(windows, 2, channels, 32, 48)

    rays = torch.randn((windows, 2, 6, 4, 6), generator=generator)
    return NormalisedMaps(planes(1), planes(3), rays)


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    codec = LatentCodec(TinyConfig(disparity_channels=3, point_channels=9))
    maps = smooth_maps(0)
    codec.fit(
        [
            NormalisedMaps(maps.disparity[i : i + 8], maps.points[i : i + 8], maps.rays[i : i + 8])
            for i in (0, 8, 16, 24, 32)
        ]
    )
    return codec


def test_maps_inside_the_basis_come_back_exactly(codec: LatentCodec) -> None:
    maps = smooth_maps(1, windows=3)
    decoded = codec.decode(codec.encode(maps))
    for name in ("disparity", "points", "rays"):
        torch.testing.assert_close(getattr(decoded, name), getattr(maps, name), rtol=1e-3, atol=1e-3)


def test_encoding_a_decoded_latent_changes_nothing(codec: LatentCodec) -> None:
    latent = torch.randn(2, 3, codec.config.latent_channels, 4, 6)
    torch.testing.assert_close(codec.encode(codec.decode(latent)), latent, rtol=1e-3, atol=1e-3)


def test_the_latent_of_training_maps_has_mean_zero_and_unit_spread(codec: LatentCodec) -> None:
    latent = codec.encode(smooth_maps(0)).movedim(-3, -1).flatten(0, -2)
    torch.testing.assert_close(latent.mean(0), torch.zeros(latent.shape[1]), atol=1e-3, rtol=0)
    directions = latent[:, codec.config.channels("rays")]
    others = latent[:, : codec.config.channels("rays").start]
    torch.testing.assert_close(others.std(0), torch.ones(others.shape[1]), rtol=1e-2, atol=1e-2)
    assert directions.std() == pytest.approx(1.0, rel=1e-2)


def test_bases_are_orthonormal_and_the_fit_repeats(codec: LatentCodec) -> None:
    again = LatentCodec(codec.config)
    again.fit([smooth_maps(0)])
    torch.testing.assert_close(again.point_basis.abs(), codec.point_basis.abs(), rtol=1e-3, atol=1e-3)
    product = codec.point_basis @ codec.point_basis.T
    torch.testing.assert_close(product, torch.eye(9), rtol=1e-5, atol=1e-5)


def test_an_empty_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        LatentCodec(TinyConfig()).fit([])
