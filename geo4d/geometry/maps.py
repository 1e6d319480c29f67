"""Depth, disparity, point maps and Pluecker ray maps into each other; normals, depth edges.

Invalid depth is NaN; the sky is +inf depth and disparity 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.cameras import camera_rays
from geo4d.geometry.poses import rigid


def depth_to_disparity(depth: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """1 / depth: +inf becomes 0, NaN stays; depth that is not positive becomes NaN.

    Examples:
        >>> depth_to_disparity(torch.tensor([4.0, torch.inf, torch.nan, 0.0])).tolist()
        [0.25, 0.0, nan, nan]
    """
    return torch.where(depth > 0, 1 / depth, torch.nan)


def disparity_to_depth(disparity: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """1 / disparity: 0 becomes +inf, NaN stays; negative disparity becomes NaN.

    Examples:
        >>> disparity_to_depth(torch.tensor([0.25, 0.0, -1.0])).tolist()
        [4.0, inf, nan]
    """
    return torch.where(disparity >= 0, 1 / disparity.abs(), torch.nan)


def cameras_to_ray_map(
    intrinsics: Float[Tensor, "*b 3 3"], c2w: Float[Tensor, "*b 4 4"], size: tuple[int, int]
) -> Float[Tensor, "*b H W 6"]:
    """Pluecker rays of all pixels: unit direction, then moment = origin x direction, in the world of ``c2w``.

    Source: Geo4D, section 3.2 (ray map modality).
    Examples:
        >>> from geo4d.geometry.cameras import centred_intrinsics
        >>> cameras_to_ray_map(centred_intrinsics(torch.tensor(1.0), (1, 1)), torch.eye(4), (1, 1)).tolist()
        [[[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]]
    """
    rays = camera_rays(intrinsics, size)
    flat = rays.reshape(*rays.shape[:-3], -1, 3) @ c2w[..., :3, :3].mT
    direction = flat / flat.norm(dim=-1, keepdim=True)
    origin = c2w[..., None, :3, 3].expand_as(direction)
    moment = torch.linalg.cross(origin, direction)
    return torch.cat([direction, moment], dim=-1).reshape(*rays.shape[:-1], 6)


def ray_map_to_cameras(ray_map: Float[Tensor, "T H W 6"]) -> Float[Tensor, "T 4 4"]:
    """Camera to window from Pluecker rays, by two closed-form fits over all rays.

    The centre is the point nearest to all rays of a frame; the rotation is the best one that takes the directions of
    the first frame to those of the frame, so it is relative to the first frame and exactly the identity there, while
    centres stay in the frame of the ray map. Directions are normalised, moments are used as they are.

    Source: Geo4D, section 3.2; its released camera recovery (without its crop to a square).
    """
    rays = ray_map.reshape(ray_map.shape[0], -1, 6).to(torch.float64)
    direction = torch.nn.functional.normalize(rays[..., :3], dim=-1)
    nearest = torch.linalg.cross(direction, rays[..., 3:])
    # sum_i (I - d d^T) c = sum_i (I - d d^T) p, with p the point of ray i nearest to the origin.
    identity = torch.eye(3, dtype=direction.dtype, device=direction.device)
    projector = direction.shape[1] * identity - direction.mT @ direction
    right = (nearest - direction * (direction * nearest).sum(-1, keepdim=True)).sum(1)
    centre = torch.linalg.lstsq(projector, right[..., None]).solution[..., 0]
    correlation = direction.mT @ direction[:1]
    u, _, vh = torch.linalg.svd(correlation)
    flip = torch.ones_like(centre)
    flip[:, 2] = torch.linalg.det(u @ vh)
    rotation = u * flip[:, None, :] @ vh
    return rigid(rotation, centre).to(ray_map.dtype)


def normals(point_map: Float[Tensor, "*b H W 3"]) -> Float[Tensor, "*b H W 3"]:
    """Unit surface normals of camera-frame points, towards the camera; NaN where neighbours are missing.

    Central differences inside, one-sided at the image border.
    """
    d_row = (
        torch.gradient(point_map, dim=-3)[0]
        if point_map.shape[-3] > 1
        else torch.full_like(point_map, torch.nan)
    )
    d_col = (
        torch.gradient(point_map, dim=-2)[0]
        if point_map.shape[-2] > 1
        else torch.full_like(point_map, torch.nan)
    )
    normal = torch.nn.functional.normalize(torch.linalg.cross(d_row, d_col), dim=-1)
    away = (normal * point_map).sum(-1, keepdim=True) > 0
    normal = torch.where(away, -normal, normal)
    return torch.where(normal.norm(dim=-1, keepdim=True) > 0.5, normal, torch.nan)


def depth_edges(
    depth: Float[Tensor, "*b H W"], *, relative_step: float = 0.1, radius: int = 1
) -> Bool[Tensor, "*b H W"]:
    """True where depth jumps: the ratio of largest to smallest valid depth nearby exceeds 1 + ``relative_step``.

    Args:
        depth: NaN is ignored; the sky counts as infinitely far, so its border is an edge.
        relative_step: jump, relative to the nearer side.
        radius: half size of the square neighbourhood, pixels.
    Examples:
        >>> depth_edges(torch.tensor([[1.0, 1.0, 1.05, 2.0]])).tolist()
        [[False, False, True, True]]
    """
    batch = depth.shape[:-2]
    flat = depth.reshape(-1, 1, *depth.shape[-2:])
    missing = ~(flat > 0)
    kernel = 2 * radius + 1
    far = torch.nn.functional.max_pool2d(
        torch.where(missing, -torch.inf, flat), kernel, stride=1, padding=radius
    )
    near = -torch.nn.functional.max_pool2d(
        torch.where(missing, -torch.inf, -flat), kernel, stride=1, padding=radius
    )
    jump = far > near * (1 + relative_step)
    return (jump & ~missing).reshape(*batch, *depth.shape[-2:])
