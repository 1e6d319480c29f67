import torch

from geo4d.geometry.cameras import centred_intrinsics, unproject
from geo4d.geometry.maps import ray_map_to_cameras
from geo4d.geometry.poses import transform
from geo4d.models.tiny.modalities import (
    MAX_DISPARITY,
    expand,
    normalise,
    relative_to_first,
    restore_disparity,
    squash,
)
from tests.support.poses import se3_exp


def scene(seed: int = 0, frames: int = 3, size: tuple[int, int] = (32, 48)):
    generator = torch.Generator().manual_seed(seed)
    depth = 2 + 6 * torch.rand((frames, *size), generator=generator)
    depth[:, :4] = torch.inf
    intrinsics = centred_intrinsics(torch.full((frames,), 40.0), size)
    c2w = se3_exp(0.1 * torch.randn((frames, 6), generator=generator))
    return depth, intrinsics, c2w


def test_every_map_can_be_restored_from_its_normalised_form() -> None:
    depth, intrinsics, c2w = scene()
    maps, scales = normalise(depth, intrinsics, c2w)
    disparity = restore_disparity(maps.disparity[:, 0]) * scales.disparity
    kept = 1 / depth < MAX_DISPARITY * scales.disparity
    torch.testing.assert_close(disparity[kept], (1 / depth)[kept], rtol=1e-5, atol=1e-7)

    near = torch.isfinite(depth)
    points = expand(maps.points.movedim(1, -1)) * scales.length
    relative = relative_to_first(c2w)
    truth = torch.stack([transform(relative[t], unproject(depth[t], intrinsics[t])) for t in range(3)])
    torch.testing.assert_close(points[near], truth[near], rtol=1e-3, atol=1e-3)

    cameras = ray_map_to_cameras(maps.rays.movedim(1, -1))
    torch.testing.assert_close(cameras[:, :3, :3].float(), relative[:, :3, :3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        cameras[:, :3, 3].float() * scales.length, relative[:, :3, 3], rtol=1e-3, atol=1e-3
    )


def test_the_sky_is_zero_disparity_and_a_unit_direction() -> None:
    maps, _ = normalise(*scene())
    assert (maps.disparity[:, 0, :4] == -1).all()
    torch.testing.assert_close(maps.points[:, :, :4].norm(dim=1), torch.ones(3, 4, 48), rtol=1e-4, atol=1e-4)


def test_normalised_maps_do_not_depend_on_the_unit_of_length() -> None:
    depth, intrinsics, c2w = scene()
    larger = c2w.clone()
    larger[:, :3, 3] *= 7
    small, _ = normalise(depth, intrinsics, c2w)
    large, _ = normalise(depth * 7, intrinsics, larger)
    for name in ("disparity", "points", "rays"):
        torch.testing.assert_close(getattr(small, name), getattr(large, name), rtol=1e-4, atol=1e-5)


def test_a_batch_is_normalised_window_by_window() -> None:
    first, second = scene(1), scene(2)
    both, scales = normalise(*(torch.stack(pair) for pair in zip(first, second, strict=True)))
    for index, one in enumerate((first, second)):
        alone, scale = normalise(*one)
        torch.testing.assert_close(both.points[index], alone.points)
        torch.testing.assert_close(both.disparity[index], alone.disparity)
        torch.testing.assert_close(scales.length[index], scale.length)


def test_squash_and_expand_are_inverse() -> None:
    points = torch.randn(200, 3, dtype=torch.float64) * 5
    torch.testing.assert_close(expand(squash(points)), points)
