import pytest
import torch

from geo4d.geometry.cameras import camera_rays, centred_intrinsics
from geo4d.geometry.fit import (
    fit_camera_pose,
    fit_scale,
    fit_scale_median,
    fit_scale_shift,
    fit_similarity,
    fit_similarity_robust,
)
from geo4d.geometry.poses import inverse, similarity, similarity_parts, transform
from tests.support.poses import se3_exp


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarity_is_recovered(
    batch: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> None:
    motion = se3_exp(torch.randn(*batch, 6, generator=generator, dtype=dtype))
    scale = torch.rand(batch, generator=generator, dtype=dtype) + 0.5
    truth = similarity(scale, motion[..., :3, :3], motion[..., :3, 3])
    source = torch.randn(*batch, 30, 3, generator=generator, dtype=dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(
        fit_similarity(source, transform(truth, source)), truth, atol=tolerance, rtol=tolerance
    )


def test_similarity_weights_drop_points_and_robust_fit_finds_them(generator: torch.Generator) -> None:
    truth = similarity(
        torch.tensor(2.0),
        *[m[:3, :3] if i == 0 else m[:3, 3] for i, m in enumerate([se3_exp(torch.ones(6))] * 2)],
    )
    source = torch.randn(100, 3, generator=generator)
    target = transform(truth, source)
    target[:25] += 5
    weight = torch.ones(100)
    weight[:25] = 0
    torch.testing.assert_close(fit_similarity(source, target, weight), truth, atol=1e-4, rtol=1e-4)
    assert (fit_similarity(source, target) - truth).abs().max() > 0.1
    torch.testing.assert_close(fit_similarity_robust(source, target), truth, atol=0.02, rtol=0.02)


def test_similarity_on_degenerate_points_stays_a_rotation() -> None:
    for source in (torch.zeros(5, 3), torch.linspace(0, 1, 5)[:, None] * torch.ones(3)):
        scale, rotation, _ = similarity_parts(fit_similarity(source, source + 1))
        torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3), atol=1e-5, rtol=0)
        assert scale.item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="valid mask"):
        fit_similarity(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2))


def test_similarity_fit_ignores_a_mirror(generator: torch.Generator) -> None:
    source = torch.randn(40, 3, generator=generator)
    mirrored = source * torch.tensor([1.0, 1.0, -1.0])
    _, rotation, _ = similarity_parts(fit_similarity(source, mirrored))
    assert torch.linalg.det(rotation).item() == pytest.approx(1, abs=1e-5)


def test_scale_fits(generator: torch.Generator) -> None:
    source = torch.rand(2, 50, generator=generator) + 0.1
    torch.testing.assert_close(fit_scale(source, 3 * source), torch.full((2,), 3.0))
    assert fit_scale_median(source[0], 3 * source[0]).item() == pytest.approx(3)
    scale, shift = fit_scale_shift(source, 3 * source - 0.7)
    torch.testing.assert_close(scale, torch.full((2,), 3.0))
    torch.testing.assert_close(shift, torch.full((2,), -0.7))
    flat_scale, flat_shift = fit_scale_shift(torch.full((4,), 2.0), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert flat_scale.item() == 0
    assert flat_shift.item() == pytest.approx(2.5)
    with pytest.raises(ValueError, match="two samples"):
        fit_scale_shift(source, source, torch.zeros_like(source))
    with pytest.raises(ValueError, match="at least one sample"):
        fit_scale_median(torch.zeros(0), torch.zeros(0))


def test_camera_pose_from_points_with_outliers(generator: torch.Generator) -> None:
    c2w = se3_exp(0.15 * torch.randn(4, 6, generator=generator, dtype=torch.float64))
    intrinsics = centred_intrinsics(torch.tensor(8.0, dtype=torch.float64), (8, 10))
    rays = camera_rays(intrinsics, (8, 10)).reshape(-1, 3).expand(4, 80, 3)
    depth = torch.rand(4, 80, 1, generator=generator, dtype=torch.float64) * 3 + 1
    world = transform(c2w, rays * depth)
    world[:, ::7] += 2
    start = torch.eye(4, dtype=torch.float64).expand(4, 4, 4)
    found = fit_camera_pose(world, rays, initial_w2c=start)
    torch.testing.assert_close(found, inverse(c2w), atol=5e-3, rtol=0)
    unseen = fit_camera_pose(world, rays, torch.zeros(4, 80, dtype=torch.float64), initial_w2c=start)
    torch.testing.assert_close(unseen, start)
