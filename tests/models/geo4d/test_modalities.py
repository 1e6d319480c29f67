"""Normalisation and its inverse, masks, rays."""

import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.models.geo4d import modalities
from tests.support.poses import se3_exp


def scene(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.randn(3, 12, 16, 3, generator=generator)
    points[..., 2] = 2 + 3 * torch.rand(3, 12, 16, generator=generator)
    return points, torch.rand(3, 12, 16, generator=generator) > 0.2


def test_points_come_back(generator: torch.Generator) -> None:
    points, valid = scene(generator)
    normalised, scale, shift = modalities.normalise_points(points, valid)
    restored = scale * modalities.decode_points(normalised)
    restored[..., 2] += shift
    kept = valid & (normalised.abs() < 2).all(-1)
    assert kept.sum() > 0.9 * valid.sum()
    torch.testing.assert_close(restored[kept], points[kept], rtol=1e-5, atol=1e-5)
    assert (normalised[~valid] == torch.tensor(modalities.SKY_VALUE)).all()


def test_disparity_comes_back(generator: torch.Generator) -> None:
    points, valid = scene(generator)
    normalised, scale, shift = modalities.normalise_disparity(points[..., 2], valid)
    restored = scale * modalities.decode_disparity(normalised[..., 0]) + shift
    kept = valid & (normalised[..., 0].abs() < 1.1)
    torch.testing.assert_close(restored[kept], 1 / points[..., 2][kept], rtol=1e-5, atol=1e-5)


def test_nothing_valid(generator: torch.Generator) -> None:
    points, valid = scene(generator)
    with pytest.raises(ValueError, match="at least one valid pixel"):
        modalities.normalise_points(points, torch.zeros_like(valid))


def test_sky_and_far_are_invalid_and_without_confidence() -> None:
    raw = torch.zeros(1, 1, 5, 4)
    raw[0, 0, :, :3] = torch.tensor(
        [[1.05, 1.05, 1.05], [1.05, 1.05, 0.5], [0.1, -1.995, 0.1], [1.3, 1.2, 1.2], [0.1, 0.2, 0.3]]
    )
    decoded = modalities.decode_point_map(raw, 0.1)
    assert decoded.sky[0, 0].tolist() == [True, False, False, False, False]
    assert decoded.far[0, 0].tolist() == [False, False, True, False, False]
    assert decoded.valid[0, 0].tolist() == [False, True, False, True, True]
    assert (decoded.confidence[~decoded.valid] == 0).all()
    torch.testing.assert_close(
        decoded.confidence[decoded.valid] * decoded.uncertainty[decoded.valid], torch.ones(3)
    )
    assert modalities.decode_point_map(raw, 0.35).sky[0, 0].tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("size", [(24, 40), (33, 20), (16, 16), (17, 16)])
def test_cameras_from_rays(size: tuple[int, int], generator: torch.Generator) -> None:
    twist = 0.3 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    twist[0] = 0
    c2w = se3_exp(twist)
    intrinsics = centred_intrinsics(torch.full((4,), 30.0, dtype=torch.float64), size)
    rays = cameras_to_ray_map(intrinsics, c2w, size)
    recovered = modalities.rays_to_cameras(rays[..., :3] * 1.7, rays[..., 3:])
    torch.testing.assert_close(recovered, c2w, atol=1e-6, rtol=0)


def test_crop_is_central_and_square() -> None:
    maps = torch.arange(6 * 11, dtype=torch.float32).reshape(1, 6, 11, 1)
    assert modalities.crop_to_square(maps)[0, 0, :, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert modalities.crop_to_square(maps.transpose(1, 2)).shape == (1, 6, 6, 1)
    even = torch.arange(4.0 * 10).reshape(1, 4, 10, 1)
    assert modalities.crop_to_square(even)[0, 0, :, 0].tolist() == [3, 4, 5, 6]
