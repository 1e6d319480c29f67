import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics, unproject
from geo4d.geometry.maps import (
    cameras_to_ray_map,
    depth_edges,
    depth_to_disparity,
    disparity_to_depth,
    normals,
    ray_map_to_cameras,
)
from geo4d.geometry.poses import relative
from tests.support.poses import se3_exp

K = centred_intrinsics(torch.tensor(30.0), (24, 32))


def test_disparity_round_trip_with_sky_and_missing() -> None:
    depth = torch.tensor([2.0, torch.inf, torch.nan, -1.0, 0.0])
    disparity = depth_to_disparity(depth)
    assert disparity[:2].tolist() == [0.5, 0.0]
    assert disparity[2:].isnan().all()
    back = disparity_to_depth(disparity)
    assert back[0] == 2.0
    assert back[1] == torch.inf
    assert disparity_to_depth(torch.tensor([-0.1])).isnan().all()


def test_ray_map_meets_the_points_of_the_camera(generator: torch.Generator) -> None:
    c2w = se3_exp(torch.randn(3, 6, generator=generator))
    rays = cameras_to_ray_map(K.expand(3, 3, 3), c2w, (24, 32))
    torch.testing.assert_close(rays[..., :3].norm(dim=-1), torch.ones(3, 24, 32))
    depth = torch.rand(3, 24, 32, generator=generator) + 1
    points = unproject(depth, K.expand(3, 3, 3)) @ c2w[:, None, :3, :3].mT + c2w[:, None, None, :3, 3]
    moment = torch.linalg.cross(points, rays[..., :3])
    torch.testing.assert_close(moment, rays[..., 3:], atol=1e-5, rtol=1e-4)


def test_cameras_come_back_from_their_ray_maps(generator: torch.Generator) -> None:
    c2w = se3_exp(torch.randn(5, 6, generator=generator))
    rays = cameras_to_ray_map(K.expand(5, 3, 3), c2w, (24, 32))
    found = ray_map_to_cameras(rays)
    torch.testing.assert_close(found[:, :3, 3], c2w[:, :3, 3], atol=1e-5, rtol=1e-5)
    first = c2w[:1].expand(5, 4, 4)
    expected = c2w[:, :3, :3] @ first[:, :3, :3].mT
    torch.testing.assert_close(found[:, :3, :3], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0, :3, :3], torch.eye(3), atol=1e-6, rtol=0)
    in_first = ray_map_to_cameras(cameras_to_ray_map(K.expand(5, 3, 3), relative(first, c2w), (24, 32)))
    torch.testing.assert_close(in_first, relative(first, c2w), atol=1e-5, rtol=1e-5)


def test_parallel_rays_give_a_finite_camera() -> None:
    rays = torch.zeros(1, 4, 4, 6)
    rays[..., 2] = 1
    assert torch.isfinite(ray_map_to_cameras(rays)).all()


def test_normals_of_a_slanted_plane() -> None:
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0]), dim=0)
    rays = unproject(torch.ones(24, 32), K)
    depth = -2.0 / (rays @ normal)  # plane n . x = -2
    found = normals(unproject(depth, K))
    torch.testing.assert_close(found, normal.expand(24, 32, 3), atol=1e-4, rtol=0)
    depth[5, 5] = torch.nan
    assert normals(unproject(depth, K))[5, 6].isnan().all()


@pytest.mark.parametrize("batch", [(), (2,)])
def test_depth_edges_are_found_at_the_step_and_the_sky(batch: tuple[int, ...]) -> None:
    depth = torch.full((*batch, 6, 9), 1.0)
    depth[..., 3:6] = 1.3
    depth[..., 6:] = torch.inf
    edges = depth_edges(depth)
    assert edges[..., 3, :].reshape(-1, 9)[0].tolist() == [
        False,
        False,
        True,
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    depth[..., 0, 0] = torch.nan
    assert not depth_edges(depth)[..., 0, 0].any()
