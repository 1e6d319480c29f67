import math

import pytest
import torch

from geo4d.geometry.cameras import (
    camera_rays,
    centred_intrinsics,
    crop_intrinsics,
    focal_from_fov,
    fov_from_focal,
    intrinsics_from_integer_pixel_centres,
    intrinsics_matrix,
    intrinsics_to_integer_pixel_centres,
    pixel_grid,
    project,
    resize_intrinsics,
    unproject,
)

K = intrinsics_matrix(*torch.tensor([40.0, 42.0, 31.0, 25.0]).unbind())


def test_pixel_grid_has_centres_at_half() -> None:
    grid = pixel_grid((3, 5))
    assert grid.shape == (3, 5, 2)
    assert grid[0, 0].tolist() == [0.5, 0.5]
    assert grid[2, 4].tolist() == [4.5, 2.5]


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_project_inverts_unproject(
    batch: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> None:
    depth = torch.rand((*batch, 6, 8), generator=generator, dtype=dtype) + 0.5
    intrinsics = K.to(dtype).expand(*batch, 3, 3)
    points = unproject(depth, intrinsics)
    assert points.shape == (*batch, 6, 8, 3)
    pixels, projected_depth = project(points.reshape(*batch, 48, 3), intrinsics)
    expected = pixel_grid((6, 8), dtype=dtype).reshape(48, 2).expand(*batch, 48, 2)
    torch.testing.assert_close(pixels, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(projected_depth.reshape(*batch, 6, 8), depth)


def test_unproject_keeps_missing_and_infinite_depth_apart() -> None:
    depth = torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]])
    points = unproject(depth, K)
    assert torch.isfinite(points).all(-1).tolist() == [[True, False], [False, True]]


def test_points_behind_the_camera_are_told_by_their_depth() -> None:
    pixels, depth = project(torch.tensor([[0.1, 0.2, -1.0], [0.0, 0.0, 0.0]]), K)
    assert torch.isfinite(pixels).all()
    assert depth.tolist() == [-1.0, 0.0]


def test_central_ray_looks_forward() -> None:
    rays = camera_rays(centred_intrinsics(torch.tensor(10.0), (3, 5)), (3, 5))
    torch.testing.assert_close(rays[1, 2], torch.tensor([0.0, 0.0, 1.0]))
    assert rays[0, 4, 0] > 0
    assert rays[0, 4, 1] < 0


def test_field_of_view_round_trip() -> None:
    fov = torch.tensor([0.3, 1.0, 2.5])
    torch.testing.assert_close(fov_from_focal(focal_from_fov(fov, 640), 640), fov)
    assert focal_from_fov(torch.tensor(math.pi / 2), 640).item() == pytest.approx(320, rel=1e-6)


def test_resize_and_crop_keep_the_ray_of_an_image_position() -> None:
    resized = resize_intrinsics(K, (60, 80), (30, 20))
    ray = torch.linalg.inv(K) @ torch.tensor([80.0, 60.0, 1.0])
    ray_resized = torch.linalg.inv(resized) @ torch.tensor([20.0, 30.0, 1.0])
    torch.testing.assert_close(ray, ray_resized)
    cropped = crop_intrinsics(K, left=7, top=3)
    torch.testing.assert_close(torch.linalg.inv(cropped) @ torch.tensor([73.0, 57.0, 1.0]), ray)
    torch.testing.assert_close(resize_intrinsics(resized, (30, 20), (60, 80)), K)


def test_integer_pixel_centres_round_trip() -> None:
    theirs = intrinsics_to_integer_pixel_centres(K)
    assert theirs[0, 2].item() == pytest.approx(30.5)
    torch.testing.assert_close(intrinsics_from_integer_pixel_centres(theirs), K)
